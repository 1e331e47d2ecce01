"""Channel selection: every norm that reads a stream chooses its own part, proven, saved, cut again."""

import copy

import pytest
import torch
from torch import nn

import cutback
from cutback.errors import UserMistake
from cutback.graph.graph import Graph
from cutback.methods.slimming import ChannelSelection, Slimming, with_channel_selection
from cutback.models import build
from cutback.models.densenet import CifarDenseNet
from cutback.models.preactivation import PreActivationResNet
from cutback.surgery.verify import prove
from tests.helpers import chain, image
from tests.methods.slimming.networks import batch_norms, block, run, spread, traced


def groups(graph: Graph) -> dict[str, int]:
    return {group.name: group.units for group in graph.groups}


def masked(model: nn.Module, plan, selections: dict[str, str], norms: dict[str, str]) -> nn.Module:
    """A copy with scale and shift zero where channels go, written by hand."""
    silent = copy.deepcopy(model)
    kept = {group.name: group.kept for group in plan.groups}
    with torch.no_grad():
        for group, norm in {**selections, **norms}.items():
            module = silent.get_submodule(norm)
            gone = [channel for channel in range(module.num_features) if channel not in kept[group]]
            module.weight[gone], module.bias[gone] = 0, 0
    return silent


SELECTIONS, NORMS = {"select1": "bn1", "select3": "bn3", "select4": "bn4"}, {"conv1": "bn2"}


def test_each_selection_and_each_inner_layer_is_a_group_of_its_own() -> None:
    graph = traced(block())
    assert groups(graph) == {"select1": 8, "conv1": 6, "select3": 8, "select4": 8}
    layers = {group.name: group.layers for group in graph.groups}
    assert layers == {"select1": ("select1",), "conv1": ("conv1",), "select3": ("select3",), "select4": ("select4",)}
    kept = {layer.layer: layer for layer in graph.kept}
    assert {"stem", "conv2", "conv3"} <= kept.keys()
    assert "is selected from at the positions that select1.positions holds" in str(kept["stem"].reasons[0])


@pytest.mark.parametrize("share", [75, 50, 25])
def test_masked_and_cut_network_are_equal_and_the_cut_is_proven(share) -> None:
    model = block(share)
    plan = cutback.plan(traced(model), score="bn-scale", budget=f"channels={share}%")
    silent = masked(model, plan, SELECTIONS, NORMS).eval()
    cutback.apply_(traced(model), plan)
    pictures = image(9, (5, 3, 8, 8))
    assert torch.allclose(model.eval()(pictures), silent(pictures), atol=1e-5)
    assert model.bn1.num_features == model.stem.out_channels == 8
    assert model.conv1.in_channels == len(model.select1.positions) == share * 8 // 100
    model.train()(pictures).sum().backward()


def test_a_wrong_selection_does_not_pass_the_proof() -> None:
    model = block()
    graph = traced(model)
    plan = cutback.plan(graph, score="bn-scale", budget="channels=50%")
    slices = {name: dict(found) for name, found in plan.slices.items()}
    kept = slices["select1.positions"][0]
    other = next(channel for channel in range(8) if channel not in kept.indices)
    slices["select1.positions"][0] = type(kept)(8, tuple(sorted((*kept.indices[1:], other))))
    tampered = type(plan)(plan.architecture, plan.result, plan.groups, slices, plan.attributes, plan.costs)
    with pytest.raises(cutback.errors.NotEquivalent):
        prove(graph, tampered)


def test_scales_of_selected_channels_rank_them() -> None:
    model = block()
    found = cutback.scores.NormScale()(traced(model))
    for group, norm in {**SELECTIONS, **NORMS}.items():
        assert found[group].tolist() == [abs(s) for s in model.get_submodule(norm).weight.double().tolist()]
    # After a cut the scales are those of the channels that are left in the selection.
    cutback.apply_(traced(model), cutback.plan(traced(model), score="bn-scale", budget="channels=50%"))
    found = cutback.scores.NormScale()(traced(model))
    scales = model.bn3.weight.detach().double().abs()
    assert found["select3"].tolist() == [float(scales[p]) for p in model.select3.positions.tolist()]


def test_weights_that_read_selected_channels_rank_them_for_other_scores() -> None:
    model = block()
    found = cutback.scores.L1()(traced(model))
    columns = model.conv1.weight.detach().double().abs().sum((0, 2, 3))
    assert torch.allclose(found["select1"].double(), columns)


def test_two_cuts_compose_save_and_load(tmp_path) -> None:
    model, plans = block(), []
    for seed in (1, 2):
        graph = traced(model)
        plans.append(cutback.plan(graph, score=cutback.scores.Random(seed), budget="channels=70%"))
        cutback.apply_(graph, plans[-1])
    cutback.save(model, plans[0].then(plans[1]), tmp_path / "small")
    again = cutback.load(tmp_path / "small", build=block)
    pictures = image(3)
    assert torch.equal(model.eval()(pictures), again.eval()(pictures))
    assert torch.equal(model.select1.positions, again.select1.positions)
    assert len(again.select1.positions) == 3
    kept = plans[0].then(plans[1]).slices["select1.positions"][0].indices
    assert model.select1.positions.tolist() == list(kept)


def test_training_goes_on_with_state_cut_along() -> None:
    model = block()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    method = Slimming(traced(model), steps=2, budget="channels=50%", optimizers=optimizer, sparsity=0.01)
    assert run(method, model, optimizer, 2) == [False, True]
    buffers = optimizer.state[model.conv1.weight]["momentum_buffer"]
    assert buffers.shape == model.conv1.weight.shape
    model(image()).sum().backward()
    optimizer.step()


def test_selections_are_put_into_a_network_without_them() -> None:
    plain = block(selects=False)
    model = with_channel_selection(plain, image())
    assert [path for path, m in model.named_modules() if isinstance(m, ChannelSelection)] == [
        "bn1.select",
        "bn3.select",
        "bn4.select",
    ]
    pictures = image(5)
    for training in (False, True):
        assert torch.equal(model.train(training)(pictures), plain.train(training)(pictures))
    assert groups(traced(model)) == {"bn1.select": 8, "conv1": 6, "bn3.select": 8, "bn4.select": 8}
    assert plain.bn1.weight is not model.bn1.norm.weight
    with pytest.raises(UserMistake, match="no batch norm of Sequential reads a shared stream"):
        with_channel_selection(chain(), image())


@pytest.mark.parametrize("network", ["resnet", "densenet"])
def test_selections_are_found_where_the_networks_that_come_along_have_theirs(network) -> None:
    model = PreActivationResNet(11) if network == "resnet" else CifarDenseNet(7)
    pictures = torch.randn(2, 3, 8, 8)
    own = [path for path, m in model.named_modules() if isinstance(m, ChannelSelection)]
    for path in own:
        holder, _, name = path.rpartition(".")
        setattr(model.get_submodule(holder), name, nn.Identity())
    found = with_channel_selection(model, pictures)
    assert [p for p, m in found.named_modules() if isinstance(m, ChannelSelection)] == [
        f"{holder}.{norm}.select".lstrip(".")
        for holder, _, name in (path.rpartition(".") for path in own)
        for norm in (name.replace("select", "bn") if hasattr(model.get_submodule(holder), "bn") else "bn1",)
    ]


@pytest.mark.parametrize("network", ["resnet", "densenet"])
def test_a_small_preactivation_network_is_slimmed_as_its_mask_says(network) -> None:
    torch.manual_seed(0)
    model = spread(PreActivationResNet(11) if network == "resnet" else CifarDenseNet(10))
    pictures = torch.randn(4, 3, 8, 8)
    graph = cutback.trace(model, pictures)
    # Every channel of every norm has a score: the stream's are selected, the inner layers' are filters.
    assert sum(groups(graph).values()) == sum(m.num_features for m in batch_norms(model).values())
    method = Slimming(graph, steps=1, budget="channels=50%", sparsity=0.0)
    silent = copy.deepcopy(model)
    with method:
        method.after_step()
    every = torch.cat([m.weight.detach().abs() for m in batch_norms(silent).values()]).sort().values
    threshold = every[len(every) // 2 - 1]
    with torch.no_grad():
        for module in batch_norms(silent).values():
            gone = module.weight.abs() <= threshold
            module.weight[gone], module.bias[gone] = 0, 0
    assert torch.allclose(model.eval()(pictures), silent.eval()(pictures), atol=1e-5)
    widths = {path: m.weight.shape for path, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    if network == "densenet":
        assert {path: shape[0] for path, shape in widths.items() if ".conv" in path and "stages.0" in path} == {
            "stages.0.0.conv": 12,
            "stages.0.1.conv": 12,
        }
    else:
        assert widths["layer1.0.conv3"][0] == 64
        assert widths["conv1"] == (16, 3, 3, 3)
        assert model.layer1[0].shortcut.weight.shape == (64, 16, 1, 1)


def test_positions_are_no_parameters_and_follow_the_device_type() -> None:
    selection = ChannelSelection(4)
    assert not list(selection.parameters())
    assert selection.half().positions.dtype == torch.int64
    assert build("resnet164").state_dict()["layer1.0.select.positions"].tolist() == list(range(16))


def test_scores_by_gates_and_masks_reach_selected_channels() -> None:
    model = block().eval()
    loader, loss = [(image(n), torch.arange(2)) for n in range(2)], nn.functional.cross_entropy
    for name in ("taylor", "group-fisher", "apoz"):
        found = cutback.scores.make_score(name, loader=loader, loss=loss)(traced(model))
        assert all(found[group].isfinite().all() and found[group].unique().numel() > 1 for group in SELECTIONS), name
    found = cutback.scores.Oracle(loader, loss)(traced(model))

    def mean_loss(network: nn.Module) -> float:
        with torch.no_grad():
            return sum(float(loss(network(x), y)) for x, y in loader) / 2

    for channel in (0, 5):
        silent = copy.deepcopy(model)
        with torch.no_grad():
            silent.conv3.weight[:, channel] = 0
        change = mean_loss(silent) - mean_loss(model)
        assert abs(float(found["select3"][channel])) == pytest.approx(abs(change), abs=1e-5)
