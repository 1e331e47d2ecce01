"""How long trace, plan and cut take beside torch-pruning's, and how they grow with depth.

Run ``python -m benchmarks.trace_speed`` on an idle machine (``make bench`` installs the other tool first). Both tools
halve the channels of the same networks in one process on one thread, in turns; medians go to
``benchmarks/trace_speed.md``, the growth with depth also to ``benchmarks/trace_speed.svg``.
"""

import argparse
import copy
import gc
import importlib.metadata
import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import geometric_mean, median
from typing import Self

import torch
from torch import nn

import cutback
from benchmarks.zoo import libraries
from benchmarks.zoo.records import machine
from cutback.graph.baked import resolved
from cutback.graph.capture import capture
from cutback.graph.groups import couple
from cutback.graph.inputs import Inputs
from cutback.models.resnet import CifarResNet
from cutback.surgery.verify import prove

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "trace_speed.md"
PLOT = ROOT / "benchmarks" / "trace_speed.svg"
NETWORKS = {
    "ResNet-50": "resnet50",
    "DenseNet-121": "densenet121",
    "MobileNetV3-L": "mobilenet_v3_large",
    "RegNet-Y-400MF": "regnet_y_400mf",
    "EfficientNet-B0": "efficientnet_b0",
    "Inception-v3": "inception_v3",
    "ConvNeXt-T": "convnext_tiny",
}
DEPTHS = (20, 32, 44, 56, 110, 1202)
BUDGET = "channels=50%"
LARGEST_RATIO, LARGEST_MEAN, LARGEST_GROWTH = 1.0, 0.5, 1.2
_STAGES = ("capture", "labels", "plan", "cut")
_COLUMNS = (
    *("network", *_STAGES, "ours", "torch-pruning", "ratio"),
    *("second capture", "proof", "peak MiB", "allowed MiB", "left by us", "left by them"),
)
Times = dict[str, float]


class Clock:
    """Times consecutive stages in CPU seconds, the garbage collector off as ``timeit`` has it; a context manager."""

    def __init__(self) -> None:
        self.times: Times = {}
        self._last = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        gc.disable()
        self._last = time.process_time()
        return self

    def __exit__(self, *failure: object) -> None:
        gc.enable()

    def stage(self, name: str) -> None:
        """End a stage."""
        now = time.process_time()
        self.times[name], self._last = now - self._last, now


def ours(model: nn.Module, pictures: torch.Tensor) -> Times:
    """Trace in eval mode, plan and cut; the proof is no part of it."""
    with Clock() as clock:
        inputs = Inputs.of(pictures)
        recorded = capture(model, inputs, training=False)
        clock.stage("capture")
        graph = resolved(*couple(model, inputs, [recorded]))
        clock.stage("labels")
        plan = cutback.plan(graph, budget=BUDGET)
        clock.stage("plan")
        cutback.apply_(graph, plan, prove=False)
        clock.stage("cut")
    return clock.times


def ours_beside(model: nn.Module, pictures: torch.Tensor) -> Times:
    """Time what comes on top by default: the second capture, in train mode, with its labels, and the proof."""
    inputs = Inputs.of(pictures)
    first = capture(model, inputs, training=False)
    with Clock() as clock:
        resolved(*couple(model, inputs, [first]))
        clock.stage("labels of one")
        second = capture(model, inputs.doubled_batch(), training=True)
        clock.stage("capture")
        graph = resolved(*couple(model, inputs, [first, second]))
        clock.stage("labels of two")
        plan = cutback.plan(graph, budget=BUDGET)
        clock.stage("plan")
        prove(graph, plan)
        clock.stage("proof")
    found = clock.times
    more_labels = max(found["labels of two"] - found["labels of one"], 0.0)
    return {"second capture": found["capture"] + more_labels, "proof": found["proof"]}


def theirs(model: nn.Module, pictures: torch.Tensor) -> Times:
    """Do the same with torch-pruning, as its documentation says, the last classifier left out."""
    import torch_pruning  # noqa: PLC0415 (part of the bench extra only)

    with Clock() as clock, warnings.catch_warnings():
        importance = torch_pruning.importance.MagnitudeImportance(p=1)
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.MagnitudePruner(
            model, pictures, importance=importance, pruning_ratio=0.5, ignored_layers=[last]
        )
        clock.stage("trace")
        pruner.step()
        clock.stage("step")
    return clock.times


def peak_of_trace(name: str) -> float:
    """Return by how many MiB a whole trace raises the peak memory of a process that has traced a small network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cutback.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)), torch.zeros(1, 3, 8, 8))
    model, pictures = build(name), torch.randn(1, 3, 224, 224)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from what is in use now
    before = _resident("VmRSS")
    cutback.trace(model, pictures)
    return (_resident("VmHWM") - before) / 1024


def allowed(name: str) -> float:
    """Return by how many MiB a trace may raise the peak: the model once more, and what a forward pass holds at once."""
    model = build(name)
    own = sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))
    return (own + cutback.measure.peak_memory(model, torch.zeros(1, 3, 224, 224))) / 2**20


def _resident(kind: str) -> int:
    """Return what Linux says of this process's memory, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


def in_its_own_process(measured: Callable[[str], float], name: str) -> float:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, name).result()


def build(name: str) -> nn.Module:
    """Build one of torchvision's networks with random weights, without auxiliary heads."""
    options = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    return libraries.torchvision().models.get_model(name, weights=None, **options).eval()


def count(model: nn.Module) -> int:
    """Count a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def compare(name: str, repeats: int, *, beside: bool) -> dict[str, float]:
    """Return medians for one network: ours by stage, theirs, and the share of the parameters each leaves."""
    torch.manual_seed(0)
    dense, pictures = build(name), torch.randn(1, 3, 224, 224)
    runs: list[Times] = []
    for number in range(repeats + 1):
        mine, other = copy.deepcopy(dense), copy.deepcopy(dense)
        turns: list[Callable[[], Times]] = [lambda mine=mine: ours(mine, pictures)]
        turns.insert(number % 2, lambda other=other: {"theirs": sum(theirs(other, pictures).values())})
        found = {key: value for turn in turns for key, value in turn().items()}
        found |= {"left by us": count(mine) / count(dense), "left by them": count(other) / count(dense)}
        runs.append(found | (ours_beside(dense, pictures) if beside and number else {}))
    result = {key: median(run[key] for run in runs[1:]) for key in runs[1]}  # the first one warms up
    result["ours"] = sum(result[stage] for stage in _STAGES)
    if beside:
        result |= {"peak": in_its_own_process(peak_of_trace, name), "allowed": allowed(name)}
    return result


def growth(repeats: int) -> dict[int, float]:
    """Return the median seconds of trace, plan and cut for each depth of a CIFAR ResNet."""
    pictures, found = torch.randn(1, 3, 32, 32), {}
    for depth in DEPTHS:
        torch.manual_seed(0)
        dense = CifarResNet(depth).eval()
        runs = [sum(ours(copy.deepcopy(dense), pictures).values()) for _ in range(repeats if depth < 1000 else 2)]
        found[depth] = median(runs) if depth < 1000 else min(runs)
    return found


def page(rows: dict[str, dict[str, float]], depths: dict[int, float], repeats: int) -> tuple[str, bool]:
    """Return the page, and whether every bound is met."""
    ratios = [row["ours"] / row["theirs"] for row in rows.values()]
    bounds: dict[str, bool] = {}
    if rows:
        bounds["at most the other tool's time on every network"] = max(ratios) <= LARGEST_RATIO
        bounds[f"geometric mean of the ratios at most {LARGEST_MEAN}: {geometric_mean(ratios):.2f}"] = (
            geometric_mean(ratios) <= LARGEST_MEAN
        )
    if any("peak" in row for row in rows.values()):
        bounds["a trace raises the peak by less than the model and its activations"] = all(
            row["peak"] < row["allowed"] for row in rows.values() if "peak" in row
        )
    each = {depth: seconds / depth for depth, seconds in depths.items()}
    if depths:
        spread = each[max(each)] / each[110]
        bounds[f"time a layer at depth {max(each)} within 20 % of that at 110: {spread:.2f}"] = spread <= LARGEST_GROWTH
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "torchvision", "torch-pruning"))
    lines = [
        "# Trace, plan and cut: time",
        "",
        f"Written by `python -m benchmarks.trace_speed`. Median CPU seconds of {repeats} runs after one to warm up,",
        "both tools in turns in one process, one thread, no garbage collection while the clock runs; half the channels",
        "by the sum of absolute weights, pictures of 224 pixels. Ours: capture in eval mode, labels, plan, cut without",
        "proof; the second capture (train mode, with its labels) and the proof, both done by default, stand apart.",
        "Peak MiB: by how much a whole trace, of both modes, raises the peak memory of a process. Allowed MiB: the",
        "model's parameters and buffers once more, and the most that a forward pass of one picture holds at once.",
        "Left: share of the parameters that remains.",
        "",
        f"cutback {cutback.__version__}, {versions}; {machine()}.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{'---|' * len(_COLUMNS)}",
    ]
    for name, row in rows.items():
        stages = [f"{row[key]:.3f}" for key in (*_STAGES, "ours", "theirs")]
        more = [f"{row[key]:.2f}" if key in row else "-" for key in ("second capture", "proof")]
        more += [f"{row[key]:.0f}" if key in row else "-" for key in ("peak", "allowed")]
        left = [f"{row[key]:.0%}" for key in ("left by us", "left by them")]
        cells = [name, *stages, f"{row['ours'] / row['theirs']:.2f}", *more, *left]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## Growth with depth",
        "",
        "CIFAR ResNets, padded shortcuts, pictures of 32 pixels; see also `trace_speed.svg`.",
        "",
        "| depth | seconds | milliseconds a layer |",
        "|---|---|---|",
        *(f"| {depth} | {seconds:.2f} | {each[depth] * 1000:.2f} |" for depth, seconds in depths.items()),
        "",
        *(f"- {'met' if met else 'MISSED'}: {bound}" for bound, met in bounds.items()),
    ]
    return "\n".join(lines) + "\n", all(bounds.values())


def growth_plot(depths: dict[int, float]) -> str:
    """Return seconds over depth as an SVG, both axes logarithmic, with the straight line through depth 110."""
    width, height, margin = 480, 320, 48
    line = {depth: depths[110] / 110 * depth for depth in depths}
    low, high = math.log(min(*depths.values(), *line.values())), math.log(max(*depths.values(), *line.values()))
    first, last = math.log(min(depths)), math.log(max(depths))

    def place(depth: int, seconds: float) -> tuple[float, float]:
        across = margin + (math.log(depth) - first) / (last - first) * (width - 2 * margin)
        return across, height - margin - (math.log(seconds) - low) / (high - low) * (height - 2 * margin)

    def path(values: dict[int, float]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*item) for item in values.items()))

    marks = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/><text x="{x:.1f}" y="{y - 8:.1f}">{depth}: {seconds:.2f} s</text>'
        for depth, seconds in depths.items()
        for x, y in [place(depth, seconds)]
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="10" text-anchor="end">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<polyline points="{path(line)}" fill="none" stroke="gray" stroke-dasharray="4"/>',
            f'<polyline points="{path(depths)}" fill="none" stroke="black"/>',
            *marks,
            f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">depth; dashed: proportional</text>',
            "</svg>",
            "",
        ]
    )


def main(words: Sequence[str]) -> int:
    """Measure and write; the exit code is 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", action="append", choices=[*NETWORKS.values(), "growth"], default=[])
    parser.add_argument(
        "--without-proof", action="store_true", help="leave out the second capture, the proof and the memory"
    )
    parser.add_argument("--out", type=Path, default=PAGE.parent)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    chosen = {title: name for title, name in NETWORKS.items() if not options.only or name in options.only}
    rows = {title: compare(name, options.repeats, beside=not options.without_proof) for title, name in chosen.items()}
    depths = growth(options.repeats) if not options.only or "growth" in options.only else {}
    text, met = page(rows, depths, options.repeats)
    (options.out / PAGE.name).write_text(text, encoding="utf-8")
    if depths:
        (options.out / PLOT.name).write_text(growth_plot(depths), encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
