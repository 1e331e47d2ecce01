"""Graph form: channels behind sizes written as literals are pruned, and the result is an ordinary graph module."""

import copy
import json
import pickle

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

import cutback
from cutback.errors import ArchitectureMismatch, NotEquivalent, UnsupportedVersion, UserMistake
from cutback.planning.plan import Kept
from cutback.surgery import recipes
from cutback.surgery.graph_form import GraphForm
from tests.graph.random_networks import RandomNetwork
from tests.helpers import randomised

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """conv a (8) -> norm -> the given function -> conv b -> relu -> conv c."""

    def __init__(self, function, inner: int = 8) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.c = nn.Conv2d(inner, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.function = function
        randomised(self)

    def forward(self, x):
        return self.c(self.b(self.function(self.norm(self.a(x)))).relu())


class Viewed(nn.Module):
    def forward(self, x):
        return x.view(-1, 8, 36).relu_().view(-1, 8, 6, 6)


KERNELS = torch.ones(8, 1, 1, 1)
SLOPES = torch.arange(1.0, 9.0).view(1, 8, 1, 1)

LITERAL = {
    "view": (lambda x: x.view(-1, 8, 36).sigmoid().view(-1, 8, 6, 6), 8),
    "reshape of the flattened": (lambda x: x.flatten(1).reshape(-1, 8, 6, 6), 8),
    "split": (lambda x: torch.cat([part.relu() for part in x.split([3, 5], 1)][::-1], 1), 8),
    "split into equal parts": (lambda x: torch.cat([part.relu() for part in x.split(4, 1)][::-1], 1), 8),
    "slices": (lambda x: torch.cat([x[:, :3].relu(), x[:, 3:8].tanh()], 1), 8),
    "narrow": (lambda x: x.narrow(1, 0, 8) + 1, 8),
    "unflatten": (lambda x: x.unflatten(1, (8, 1)).squeeze(2), 8),
    "heads": (lambda x: (x.view(-1, 2, 4, 36) * 2).view(-1, 8, 6, 6), 8),
    "a constant made in forward": (lambda x: x * torch.arange(1.0, 9.0).view(1, 8, 1, 1), 8),
    "a kernel made in forward": (lambda x: F.conv2d(x, torch.ones(8, 1, 1, 1) / 2, groups=8), 8),
    "groups": (lambda x: F.conv2d(x, KERNELS, groups=8), 8),
    "pad beside a literal view": (lambda x: F.pad(x.view(-1, 8, 6, 6), (0, 0, 0, 0, 2, 1)), 11),
    "a constant of channels": (lambda x: x * SLOPES, 8),
    "a constant of one number for each": (lambda x: x * torch.tensor([[[[1.0]]]] * 8).movedim(0, 1), 8),
}


def naively_silenced(model: nn.Module, plan) -> nn.Module:
    """The original with the columns of removed channels set to zero, by hand."""
    silent = copy.deepcopy(model)
    for name in ("b", "c"):
        kept = plan.slices.get(f"{name}.weight", {}).get(1)
        if kept:
            gone = [index for index in range(kept.total) if index not in kept.indices]
            with torch.no_grad():
                silent.get_submodule(name).weight[:, gone] = 0
    return silent


def small(model: nn.Module, share: str = "50%", images: object = IMAGES):
    """Trace, plan and cut in graph form; return the graph module and the plan."""
    graph = cutback.trace(model, images, form="graph")
    plan = cutback.plan(graph, budget=f"channels={share}")
    return cutback.apply(graph, plan, form="graph"), plan


@pytest.mark.parametrize("name", sorted(LITERAL))
@pytest.mark.parametrize("share", [30, 50, 70])
def test_a_literal_size_is_pruned_in_graph_form(name: str, share: int) -> None:
    function, inner = LITERAL[name]
    model = Net(function, inner).eval()
    before = copy.deepcopy(model.state_dict())
    pruned, plan = small(model, f"{share}%")
    assert isinstance(pruned, fx.GraphModule)
    assert pruned.a.weight.shape[0] == pruned.norm.running_mean.shape[0] < 8
    expected = naively_silenced(model, plan)(IMAGES)
    assert torch.allclose(pruned(IMAGES), expected, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["view", "split", "slices"])
def test_the_same_size_keeps_its_channels_in_module_form(name: str) -> None:
    model = Net(*LITERAL[name])
    graph = cutback.trace(model, IMAGES)
    kept = next(layer for layer in graph.kept if layer.layer == "a")
    assert kept.channels > 0
    assert "literal" in kept.reasons[0].reason
    assert "test_graph_form.py" in kept.reasons[0].reason


def test_an_unequal_split_of_a_network_loses_channels_in_graph_form_only() -> None:
    torch.manual_seed(0)
    network = RandomNetwork(["literal", "plain"], "mean")
    images = torch.randn(2, 3, 8, 8)
    kept = {layer.layer: layer.channels for layer in cutback.trace(network, images).kept}
    assert kept["blocks.0.widen.0"] == 12
    pruned, plan = small(network, images=images)
    assert len(plan.slices["blocks.0.widen.0.weight"][0].indices) == 1 + 4
    assert pruned(images[:1]).shape == (1, 4)


def test_it_runs_at_another_batch_size_and_refuses_another_resolution() -> None:
    model = Net(*LITERAL["view"]).eval()
    pruned, plan = small(model)
    images = torch.randn(5, 3, 6, 6)
    assert torch.allclose(pruned(images), naively_silenced(model, plan)(images), atol=1e-5)
    with pytest.raises(UserMistake, match="of any batch size"):
        pruned(torch.randn(2, 3, 12, 6))


def test_a_batch_size_that_the_code_fixes_is_fixed() -> None:
    pruned, _ = small(Net(lambda x: x.view(2, 8, 36).view(2, 8, 6, 6)).eval())
    assert pruned(IMAGES).shape == (2, 2, 6, 6)
    with pytest.raises(UserMistake, match="captured for inputs of shape"):
        pruned(torch.randn(3, 3, 6, 6))


@pytest.mark.parametrize("hidden", [lambda x: x * len(x), lambda x: x * int(str(x.shape[0])), lambda x: x * x.numel()])
def test_a_number_that_hides_the_batch_size_fixes_it(hidden) -> None:
    model = Net(hidden).eval()
    graph = cutback.trace(model, IMAGES, form="graph")
    assert torch.allclose(graph.model(IMAGES), model(IMAGES), atol=1e-6)
    with pytest.raises(UserMistake):
        graph.model(torch.randn(3, 3, 6, 6))


def test_a_path_that_depends_on_the_batch_size_fixes_it() -> None:
    model = Net(lambda x: x * 2 if x.shape[0] > 1 else x).eval()
    graph = cutback.trace(model, IMAGES, form="graph")
    with pytest.raises(UserMistake):
        graph.model(IMAGES[:1])


def test_train_mode_updates_its_own_statistics_drops_out_and_learns() -> None:
    torch.manual_seed(0)
    model = Net(nn.Sequential(nn.Dropout(0.5), nn.Flatten(2), nn.Unflatten(2, (6, 6)), Viewed()))
    statistics = model.norm.running_mean.clone()
    pruned, _ = small(model)
    pruned.train()
    first, second = pruned(IMAGES), pruned(IMAGES)
    assert not torch.equal(first, second)
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1, momentum=0.9)
    before = {name: parameter.detach().clone() for name, parameter in pruned.named_parameters()}
    pruned(IMAGES).square().mean().backward()
    optimizer.step()
    assert all(
        not torch.equal(before[name], parameter) for name, parameter in pruned.named_parameters() if name != "a.bias"
    )
    assert pruned.norm.num_batches_tracked.item() == 3
    assert torch.equal(model.norm.running_mean, statistics)
    pruned.eval()
    assert torch.equal(pruned(IMAGES), pruned(IMAGES))


def test_it_equals_the_model_in_both_modes_before_a_cut() -> None:
    model = Net(*LITERAL["slices"])
    form = cutback.trace(model, IMAGES, form="graph").model
    assert list(form.state_dict()) == list(model.state_dict())
    form.load_state_dict(model.state_dict())
    for training in (False, True):
        assert torch.allclose(form.train(training)(IMAGES), model.train(training)(IMAGES), atol=1e-6)
    assert torch.equal(form.norm.running_var, model.norm.running_var)


def test_arguments_and_results_of_any_structure() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Net(*LITERAL["view"])

        def forward(self, left, *, others, scale=2):
            first = self.body(left) * scale
            return {"sum": first + self.body(others[0]), "all": (first, [others[1]], "text"), "none": None}

    model = Several().eval()
    given = {"left": IMAGES, "others": (IMAGES + 1, torch.ones(2)), "scale": 3}
    pruned, _ = small(model, images=given)
    result, expected = pruned(**given), model(**given)
    assert result["all"][2] == "text"
    assert result["none"] is None
    assert result["sum"].shape == expected["sum"].shape
    assert torch.equal(result["all"][1][0], torch.ones(2))
    with pytest.raises(UserMistake, match="only tensors may change"):
        pruned(**{**given, "scale": 4})


def test_tied_and_unused_states_keep_their_names() -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__(*LITERAL["view"])
            self.again, self.spare = self.c, nn.Linear(2, 2)
            self.register_buffer("table", torch.ones(2), persistent=False)

    model = Tied()
    with pytest.raises(cutback.errors.UnreachedParameters):
        small(model)
    graph = cutback.trace(model, IMAGES, form="graph")
    plan = cutback.plan(graph, budget="channels=50%")
    pruned = cutback.apply(graph, plan, form="graph", ignore_unreached=True)
    assert list(pruned.state_dict()) == list(model.state_dict())
    assert pruned.again.weight is pruned.c.weight
    assert pruned.table.shape == (2,)


def test_save_and_load(tmp_path) -> None:
    def build() -> nn.Module:
        return Net(*LITERAL["a constant of channels"]).train()

    pruned, plan = small(build())
    cutback.save(pruned, plan, tmp_path / "small")
    loaded = cutback.load(tmp_path / "small", build=build)
    assert isinstance(loaded, fx.GraphModule)
    assert torch.equal(loaded.eval()(IMAGES), pruned.eval()(IMAGES))
    graph = cutback.trace(loaded, IMAGES)
    again = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, again)
    assert loaded.a.weight.shape[0] < pruned.a.weight.shape[0]
    cutback.save(loaded, plan.then(again), tmp_path / "smaller")
    twice = cutback.load(tmp_path / "smaller", build=build)
    assert torch.equal(twice.eval()(IMAGES), loaded.eval()(IMAGES))


def test_a_model_that_computes_something_else_is_not_loaded(tmp_path, monkeypatch) -> None:
    pruned, plan = small(Net(*LITERAL["view"]))
    cutback.save(pruned, plan, tmp_path / "small")
    other = lambda: Net(lambda x: x.view(-1, 8, 36).relu().view(-1, 8, 6, 6))  # noqa: E731
    with pytest.raises(ArchitectureMismatch, match="other calls"):
        cutback.load(tmp_path / "small", build=other)
    document = json.loads((tmp_path / "small" / "plan.json").read_text())
    assert document["version"] == 2
    assert document["graph_form"]["torch"] == torch.__version__
    read = recipes.Recipe.from_document
    monkeypatch.setattr(recipes.Recipe, "from_document", classmethod(lambda _, d: read({**d, "torch": "1.0"})))
    with pytest.raises(UnsupportedVersion, match=r"recorded with torch 1\.0"):
        cutback.load(tmp_path / "small", build=other)


def test_a_wrong_cut_is_caught() -> None:
    graph = cutback.trace(Net(*LITERAL["view"]), IMAGES, form="graph")
    plan = cutback.plan(graph, budget="channels=50%")
    slices = {name: dict(found) for name, found in plan.slices.items()}
    kept = slices["b.weight"][1].indices
    slices["b.weight"][1] = Kept(8, (kept[1], kept[0], *kept[2:]))
    parts = (plan.architecture, plan.result, plan.groups)
    swapped = type(plan)(*parts, slices, plan.attributes, plan.costs)
    with pytest.raises(NotEquivalent):
        cutback.apply(graph, swapped, form="graph")
    sizes = {"": {**plan.attributes[""], next(iter(plan.attributes[""])): 5}}
    with pytest.raises(NotEquivalent):
        cutback.apply(graph, type(plan)(*parts, plan.slices, sizes, plan.costs), form="graph")


def test_what_keeps_channels_in_graph_form_is_named_with_its_place() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Net(lambda x: x.sort(1)[0])

        def forward(self, x):
            return self.inner(x)

    graph = cutback.trace(Outer(), IMAGES, form="graph")
    assert any((b.operator, b.path) == ("aten::sort", "inner") for b in graph.boundaries), graph.boundaries


def test_forms_are_not_mixed_up() -> None:
    model = Net(*LITERAL["view"])
    graph = cutback.trace(model, IMAGES)
    plan = cutback.plan(graph, budget="channels=50%")
    with pytest.raises(UserMistake, match="traced in module form"):
        cutback.apply(graph, plan, form="graph")
    with pytest.raises(UserMistake, match="form is 'onnx'"):
        cutback.trace(model, IMAGES, form="onnx")  # type: ignore[arg-type]
    pruned = cutback.apply(graph, plan)
    assert type(pruned) is Net
    assert (pruned.b.out_channels, model.b.out_channels) == (4, 8)


def test_copies_are_independent_and_pickles_refused() -> None:
    form = cutback.trace(Net(lambda x: x * torch.tensor([2, 3, 4]).sum()), IMAGES, form="graph").model.eval()
    assert isinstance(form, GraphForm)
    other = copy.deepcopy(form)
    with torch.no_grad():
        other.c.weight.zero_()
    assert not torch.equal(form(IMAGES), other(IMAGES))
    assert other.graph is not form.graph
    assert form.double()(IMAGES.double()).dtype == torch.float64
    with pytest.raises(TypeError, match=r"cutback\.save"):
        pickle.dumps(form)
