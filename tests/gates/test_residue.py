"""Gates leave nothing behind, and models of every kind run inside them."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cutback
from cutback.errors import StaleGraph, Ungatable, UnknownName, UserMistake
from cutback.gates import Gates, Restarts
from tests.gates.networks import IMAGES, LABELS, relative, traced, two_blocks
from tests.helpers import image, leave_group, randomised, snapshot


def test_nothing_is_left_behind_also_after_an_exception():
    model = two_blocks().eval()
    graph = traced(model)
    before, state = snapshot(model), torch.get_rng_state()

    def fail():
        with Gates(graph) as gates:
            gates.mask({"stem": torch.rand(5, 6, generator=torch.Generator())})
            model(IMAGES)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert snapshot(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_failing_forward_leaves_the_model_as_it_was():
    model = two_blocks()
    before = snapshot(model)
    with pytest.raises(Exception, match="groups=1"), Gates(traced(model)):
        model(torch.zeros(2, 4, 8, 8).double())
    assert snapshot(model) == before


def test_a_forward_of_the_models_own_comes_back():
    model = two_blocks()
    graph = traced(model)
    model.forward = own = lambda images: TypeError
    with Gates(graph):
        pass
    assert model.forward is own


def test_gates_do_not_nest():
    graph = traced(two_blocks())
    with Gates(graph), pytest.raises(UserMistake, match="inside other gates already"), Gates(graph):
        pass
    assert "forward" not in vars(graph.model)


def test_gradients_of_different_batches_are_not_mixed():
    model = two_blocks()
    with Gates(traced(model)) as gates:
        with pytest.raises(UserMistake, match="no forward pass has run"):
            gates.take()
        model(IMAGES).sum().backward()
        with pytest.raises(UserMistake, match=r"gradients of 5 samples wait while 4 samples are run: call take\(\)"):
            model(IMAGES[:4])
        gates.take()
        model(IMAGES[:4]).sum().backward()
        assert {len(gradient) for gradient in gates.take().values()} == {4}


def test_gradients_of_several_backward_passes_add_up():
    model = two_blocks().eval()
    with Gates(traced(model)) as gates:
        model(IMAGES).sum().backward()
        once = gates.take()["stem"]
        for _ in range(2):
            model(IMAGES).sum().backward()
        assert relative(gates.take()["stem"], 2 * once) < 1e-12


def test_modules_frozen_in_eval_mode_stay_so():
    plain, gated = two_blocks().train(), two_blocks().train()
    for model in (plain, gated):
        model.first_norm.eval()
    expected = plain(IMAGES)
    with Gates(traced(gated)):
        found = gated(IMAGES)
    assert torch.allclose(found, expected, rtol=1e-12)
    assert torch.equal(gated.first_norm.running_mean, plain.first_norm.running_mean)
    assert not torch.equal(gated.third_norm.running_mean, two_blocks().third_norm.running_mean)


def test_dropout_is_drawn_as_ever():
    model = randomised(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(6, 2, 3))).train()
    graph = cutback.trace(model, image())
    torch.manual_seed(7)
    expected = model(image())
    torch.manual_seed(7)
    with Gates(graph):
        assert torch.equal(model(image()), expected)
        assert not torch.equal(model(image()), expected)


@dataclass
class Answer:
    logits: Tensor
    features: list


class Structured(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 3)

    def forward(self, images, *, scale=1.0):
        x = F.relu(self.stem(images))
        return Answer(self.head(x) * scale, [x.mean(), {"size": 3}])


def test_what_is_returned_keeps_its_structure():
    model = randomised(Structured())
    graph = cutback.trace(model, image())
    expected = model(image(), scale=3.0)
    with Gates(graph):
        found = model(image(), scale=3.0)
    assert isinstance(found, Answer)
    assert found.features[1] == {"size": 3}
    assert torch.allclose(found.logits, expected.logits, rtol=1e-6)
    assert torch.allclose(found.features[0], expected.features[0])


class WithAuxiliary(nn.Module):
    """A head that runs in train mode alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 3)
        self.inner, self.auxiliary = nn.Conv2d(6, 5, 3), nn.Conv2d(5, 2, 3)

    def forward(self, images):
        x = F.relu(self.stem(images))
        return (self.head(x), self.auxiliary(F.relu(self.inner(x)))) if self.training else self.head(x)


def test_a_head_that_runs_in_train_mode_alone_is_gated_there():
    model = randomised(WithAuxiliary()).double()
    graph = traced(model)
    assert {group.name for group in graph.groups} == {"stem", "inner"}
    with Gates(graph) as gates:
        model.eval()(IMAGES).square().sum().backward()
        gradients = gates.take()
        assert gradients["stem"].abs().min() > 0
        assert gradients["inner"].shape == (5, 5)
        assert not gradients["inner"].any()
        sum(output.square().sum() for output in model.train()(IMAGES)).backward()
        assert gates.take()["inner"].any()
    run = Restarts(graph).on(IMAGES)
    assert run.order == ["stem", "inner"]
    model.eval()
    run = Restarts(graph).on(IMAGES)
    assert run.order == ["stem"]
    with pytest.raises(Ungatable, match="inner: nothing of it runs in the present mode"):
        run.masked({"inner": torch.ones(1, 5).double()})


def test_a_model_inside_ddp_runs_gated(tmp_path):
    model = two_blocks()
    graph = traced(model)
    with Gates(graph) as gates:
        model.eval()(IMAGES).sum().backward()
        expected = gates.take()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        outside = nn.parallel.DistributedDataParallel(model)
        model.zero_grad()
        with Gates(graph) as gates:
            outside(IMAGES).sum().backward()
            found = gates.take()
        assert model.stem.weight.grad.any()
    finally:
        leave_group()
    for name, gradient in expected.items():
        assert relative(found[name], gradient) < 1e-12


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, sequence):
        return self.head(self.cells(sequence)[0][:, -1])


def test_what_cannot_be_gated_is_named():
    graph = cutback.trace(Recurrent(), torch.randn(2, 5, 3))
    inside = r"group cells cannot be gated: its channels are consumed by cells\.weight_hh_l0 inside an operator"
    with pytest.raises(Ungatable, match=inside):
        Gates(graph)
    with pytest.raises(UnknownName, match="no site is called 'inputs'; write one of consumer, input, norm"):
        Gates(graph, "inputs")


def test_autocast_reaches_the_gated_model():
    model = two_blocks().float().train()
    graph = cutback.trace(model, image())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(IMAGES.float())
        with Gates(graph) as gates:
            found = model(IMAGES.float())
    F.cross_entropy(found.float(), LABELS).backward()
    assert found.dtype == expected.dtype == torch.bfloat16
    assert relative(found.float(), expected.float()) < 0.05
    assert gates.take()["stem"].dtype == torch.float32


def test_a_model_that_has_changed_is_refused():
    model = two_blocks()
    graph = traced(model)
    copy.deepcopy(model)
    model.head = nn.Linear(6, 3).double()
    with Gates(graph), pytest.raises(StaleGraph, match=r"head\.weight has changed since the model was traced"):
        model(IMAGES)
    model.head = nn.Sequential(nn.ReLU(), nn.Linear(6, 4)).double()
    with Gates(graph), pytest.raises(StaleGraph, match=r"first in head\.0: aten::relu instead of aten::linear"):
        model(IMAGES)
