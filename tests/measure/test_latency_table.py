"""The table of layer times: what is measured, what is looked up again, and what lies between the measured widths."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cutback
from cutback.errors import UserMistake
from cutback.measure.latency_model import Calibration, LatencyModel
from cutback.measure.layer_call import LayerCall, Operand
from cutback.measure.layer_calls import layer_calls
from cutback.measure.setting import LatencySetting, _processor, environment
from cutback.planning.slices import kept_masks
from cutback.surgery.cut import cut_in_place
from tests.helpers import Residual, chain, image


def blocks_of(width: int, size: int = 16) -> int:
    return math.ceil(width / size)


def stairs(call: LayerCall, widths: tuple[int, ...]) -> float:
    """A machine whose kernels work on whole blocks of 16 channels on both sides, and whose calls cost a little."""
    return 0.01 + math.prod(blocks_of(width) for width in widths) + 0.001 * sum(widths)


class Counted:
    """A timer that notes what it was asked."""

    def __init__(self, timer=stairs) -> None:
        self.timer, self.asked = timer, []

    def __call__(self, call: LayerCall, widths: tuple[int, ...]) -> float:
        self.asked.append((call.key, widths))
        return self.timer(call, widths)


def model_of(graph: cutback.Graph, folder, timer=stairs, **setting) -> LatencyModel:
    return LatencyModel(graph, LatencySetting(cache=folder, **setting), timer=timer)


def shapes_called(graph: cutback.Graph, kept: Sequence[int]) -> list[list[tuple[int, ...]]]:
    """Return the shapes of the tensors of each described call at some widths."""
    found = []
    for call in layer_calls(graph, 2):
        widths = tuple(round(float(axis.units @ np.array(kept)) + axis.fixed) for axis in call.axes)
        operands = [value for value in call.arguments.values() if isinstance(value, Operand)]
        found.append([tuple(size.at(widths) for size in operand.shape) for operand in operands])
    return found


def test_described_calls_have_the_shapes_that_the_cut_model_really_uses() -> None:
    graph = cutback.trace(Residual(), image())
    plan = cutback.plan(graph, budget="channels=50%")
    described = shapes_called(graph, [len(group.kept) for group in plan.groups])
    assert described != shapes_called(graph, [group.units for group in graph.groups])
    cut_in_place(graph, plan, prove=False)
    narrow = cutback.trace(graph.model, image())
    assert described == shapes_called(narrow, [group.units for group in narrow.groups])


def test_every_fine_width_and_no_other_call_is_measured(tmp_path) -> None:
    timer = Counted()
    graph = cutback.trace(chain((32, 48)), image())
    model = model_of(graph, tmp_path, timer)
    assert model.measured == len(timer.asked) == len(set(timer.asked))
    operators = {json.loads(key)[0] for key, _ in timer.asked}
    assert {"aten.conv2d.default", "aten.batch_norm.default", "aten.linear.default"} <= operators
    assert not any("flatten" in operator or "view" in operator for operator in operators)


def test_between_the_blocks_of_a_staircase_the_prediction_is_exact(tmp_path) -> None:
    graph = cutback.trace(chain((64, 96)), image())
    model = model_of(graph, tmp_path)
    calls = layer_calls(graph, 1)

    def truth(kept: np.ndarray) -> float:
        widths = [tuple(round(float(axis.units @ kept) + axis.fixed) for axis in call.axes) for call in calls]
        return sum(stairs(call, width) for call, width in zip(calls, widths, strict=True))

    for kept in ([64, 96], [48, 80], [33, 96], [64, 65], [32, 17], [17, 49], [5, 9]):
        assert model.total(np.array(kept)) == pytest.approx(truth(np.array(kept)), rel=0.05), kept
    assert model.total(np.array([33, 96])) == pytest.approx(model.total(np.array([48, 96])), rel=0.02)
    assert model.total(np.array([32, 96])) < 0.85 * model.total(np.array([33, 96]))


def test_a_second_run_measures_nothing_and_predicts_the_same(tmp_path) -> None:
    graph = cutback.trace(chain((16, 24)), image())
    first = model_of(graph, tmp_path)

    def never(call: LayerCall, widths: tuple[int, ...]) -> float:
        raise AssertionError(f"measured {call.key} at {widths} again")

    second = model_of(cutback.trace(chain((16, 24), seed=3), image()), tmp_path, never)
    assert (first.measured > 0, second.measured) == (True, 0)
    assert second.dense == first.dense


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": "other"}', "negative"])
def test_a_damaged_file_is_made_anew(tmp_path, damage: str) -> None:
    graph = cutback.trace(chain((6,)), image())
    whole = model_of(graph, tmp_path)
    (file,) = tmp_path.iterdir()
    document = json.loads(file.read_text())
    damaged = json.loads(file.read_text())
    next(iter(damaged["points"].values())).update({"1": -1.0})
    file.write_text(json.dumps(damaged) if damage == "negative" else damage)
    assert model_of(graph, tmp_path).measured == whole.measured
    assert json.loads(file.read_text()) == document


def test_threads_and_devices_have_files_of_their_own_and_batches_keys_of_their_own(tmp_path) -> None:
    graph = cutback.trace(chain((6,)), image())
    whole = model_of(graph, tmp_path, threads=1).measured
    assert model_of(graph, tmp_path, threads=2).measured == whole
    assert len(list(tmp_path.iterdir())) == 2
    assert model_of(graph, tmp_path, threads=1, batch=4).measured == whole
    assert model_of(graph, tmp_path, threads=1, batch=4).measured == 0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_what_changes_the_kernels_has_a_file_of_its_own(monkeypatch) -> None:
    cpu = torch.device("cpu")
    plain = environment(cpu, 1)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
        assert environment(cpu, 1) != plain
    with torch.backends.mkldnn.flags(enabled=False):
        assert environment(cpu, 1) != plain
    assert environment(cpu, 1) == plain


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("CPU implementer : 0x41\nCPU variant : 0x3\nCPU part : 0xd0c\nCPU revision : 1\n", "0x41 0xd0c 0x3 1"),
        ("BogoMIPS : 50\n", "some-host"),
    ],
)
def test_processors_without_a_model_name_are_told_apart(monkeypatch, told: str, name: str) -> None:
    monkeypatch.setattr("pathlib.Path.read_text", lambda *_, **__: told)
    monkeypatch.setattr("platform.node", lambda: "some-host")
    _processor.cache_clear()
    try:
        assert name in str(environment(torch.device("cpu"), 1)["processor"])
    finally:
        _processor.cache_clear()


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    graph = cutback.trace(chain((6,)), image())
    assert model_of(graph, tmp_path / "file").measured > 0


def test_the_clock_is_used_in_the_asked_number_of_threads_and_everything_put_back(tmp_path, monkeypatch) -> None:
    seen = []

    def timer(call: LayerCall, widths: tuple[int, ...]) -> float:
        seen.append(torch.get_num_threads())
        return 1.0

    threads = torch.get_num_threads()
    model_of(cutback.trace(chain((6,)), image()), tmp_path, timer, threads=threads + 1)
    assert set(seen) == {threads + 1}
    assert torch.get_num_threads() == threads


def test_real_times_are_positive_and_grow(tmp_path) -> None:
    graph = cutback.trace(chain((64,)), image(shape=(1, 3, 48, 48)))
    model = model_of(graph, tmp_path, None)
    assert 0 < model.total(np.array([1])) < model.total(np.array([64]))


class Grouped(nn.Module):
    """Grouped and depthwise convolutions, a concatenation, a gate and a norm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.norm = nn.GroupNorm(4, 32)
        self.gate = nn.Conv2d(32, 32, 1)
        self.last = nn.Conv2d(48, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images)
        inner = self.norm(self.depthwise(self.grouped(stem)))
        inner = inner * self.gate(inner.mean((2, 3), keepdim=True)).sigmoid()
        return self.last(torch.cat([stem, inner], dim=1))


def test_grouped_and_depthwise_calls_shrink_too(tmp_path) -> None:
    graph = cutback.trace(Grouped(), image())
    axes = {call.path: call.axes for call in layer_calls(graph, 2) if call.path}
    assert {path: len(found) for path, found in axes.items()} == {
        "stem": 1, "grouped": 1, "depthwise": 1, "norm": 1, "gate": 2, "last": 1,
    }  # fmt: skip
    assert axes["grouped"][0].multiple == 8
    plan = cutback.plan(graph, budget="channels=50%")
    described = shapes_called(graph, [mask.sum() for mask in kept_masks(graph, [g.kept for g in plan.groups])])
    cut_in_place(graph, plan, prove=False)
    narrow = cutback.trace(graph.model, image())
    assert described == shapes_called(narrow, [group.units for group in narrow.groups])


@pytest.mark.parametrize("options", [{"batch": 0}, {"threads": 0}, {"batch": 1.5}, {"threads": True}])
def test_senseless_settings_are_refused(options: dict) -> None:
    with pytest.raises(UserMistake, match="at least 1"):
        LatencySetting(**options)


def test_the_calibration_passes_through_what_was_measured() -> None:
    line = Calibration.through([2.0, 10.0], [5.0, 13.0])
    assert (line.factor, line.overhead) == pytest.approx((1.0, 3.0))
    assert Calibration.through([2.0], [5.0])(4.0) == pytest.approx(10.0)
    noisy = Calibration.through([2.0, 10.0], [5.0, 4.0])
    assert (noisy.overhead, noisy(10.0)) == pytest.approx((0.0, 4.0))
    assert line.moved_through(4.0, 8.0)(4.0) == pytest.approx(8.0)
