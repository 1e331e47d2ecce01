"""The report of a run: one JSON document, and the table made of it."""

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from safetensors.torch import save as serialise_tensors
from torch import Tensor, nn

import cutback
from cutback.cli import console
from cutback.cli.request import Request
from cutback.measure import Latency
from cutback.planning.budget import parse_budgets
from cutback.planning.plan import Plan
from cutback.planning.quantities.latency import PER_MILLISECOND
from cutback.planning.quantity import shown
from cutback.surgery.verify import Proof
from cutback.train import Data, FitResult

REPORT_VERSION = 1
IN_TABLE = ("macs", "params", "size")
STAGES = {"dense": "dense", "cut": "after cut", "final": "after fine-tune"}


@dataclass(frozen=True)
class Stage:
    """What a network is worth at one point of the run.

    Attributes:
        accuracy: on the test split, in 0..1.
        validation_accuracy: on the validation split, in 0..1.
        macs: multiply-accumulates for one picture.
        params: number of parameters.
        bytes: size as a safetensors file.
    """

    accuracy: float
    validation_accuracy: float
    macs: int
    params: int
    bytes: int


def file_size(model: nn.Module) -> int:
    """Return the size in bytes that a model's state has as a safetensors file, tied tensors once."""
    distinct: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        distinct.setdefault(id(tensor), (name, tensor.detach().cpu().contiguous().clone()))
    return len(serialise_tensors(dict(distinct.values()), metadata={"format": "pt"}))


def make_report(
    request: Request,
    data: Data,
    *,
    stages: Mapping[str, Stage],
    latencies: Mapping[str, Latency],
    trainings: Mapping[str, FitResult],
    plan: Plan,
    proof: Proof,
    reload: tuple[str, ...],
    seconds: float,
) -> dict[str, object]:
    """Put a run's findings into one document for JSON; accuracies lie in 0..1, times are milliseconds."""
    return {
        "format": "cutback report",
        "version": REPORT_VERSION,
        "command": shlex.join(("cutback", *request.arguments)),
        "model": request.model,
        **{name: {**asdict(stage), **_timing(latencies[name])} for name, stage in stages.items()},
        **{name: _training(result) for name, result in trainings.items()},
        "plan": {
            "budgets": plan.budgets,
            "costs": {name: [cost.before, cost.after] for name, cost in plan.costs.items()},
            "kept": {group.name: [len(group.kept), group.total] for group in plan.groups},
            "notes": plan.notes,
        },
        "proof": asdict(proof),
        "data": _data(data),
        "seed": request.seed,
        "versions": {
            "cutback": cutback.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "threads": latencies["dense"].threads,
            "device": request.device,
            "latency_batch": request.latency_batch,
        },
        "seconds": round(seconds, 1),
        "reload": reload,
    }


def _data(data: Data) -> dict[str, object]:
    return {
        "name": data.name,
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "input_shape": data.input_shape,
        "classes": data.class_names,
        "mean": data.mean,
        "std": data.std,
    }


def _timing(latency: Latency) -> dict[str, object]:
    return {
        "latency_ms": latency.median_ms,
        "latency_interval_ms": [latency.low_ms, latency.high_ms],
        "latency_repeats": latency.repeats,
    }


def print_report(report: Mapping[str, Any], folder: Path) -> None:
    """Print the table, what is to be known about it, and how to load the result."""
    out = console.stdout()
    stages = {title: report[name] for name, title in STAGES.items()}
    table = Table("", *stages, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    dense = stages["dense"]
    table.add_row("test accuracy", *(f"{stage['accuracy']:.2%}" for stage in stages.values()))
    table.add_row("validation accuracy", *(f"{stage['validation_accuracy']:.2%}" for stage in stages.values()))
    for key, title in (("params", "parameters"), ("macs", "MACs")):
        table.add_row(title, *(_counted(stage[key], dense[key]) for stage in stages.values()))
    machine = report["machine"]
    where = f"batch {machine['latency_batch']}, threads: {machine['threads']}"
    table.add_row(f"latency, ms (95 %), {where}", *(_timed(stage) for stage in stages.values()))
    table.add_row("file size, bytes", *(_counted(stage["bytes"], dense["bytes"]) for stage in stages.values()))
    out.print(table)
    for name, (before, after) in report["plan"]["costs"].items():
        if name not in IN_TABLE:
            out.print(f"{name}: {shown(name, before)} -> {shown(name, after)} ({after / max(before, 1):.1%})")
    error = report["proof"]["error"]
    out.print(f"\nproven: equal to the original with the removed channels silenced, relative error at most {error:.0e}")
    for note in report["plan"]["notes"]:
        out.print(f"note: {note}")
    for budget in report["plan"]["budgets"]:
        if str(budget).startswith("latency="):
            out.print(f"{budget}: {_latency_reached(budget, report)}")
    out.print(f"written to {folder}; load it with\n")
    for line in report["reload"]:
        out.print(f"    {line}", soft_wrap=True)


def _latency_reached(budget: str, report: Mapping[str, Any]) -> str:
    """Say how the final network's latency compares with what was asked for."""
    (wanted,) = parse_budgets(budget)
    taken, dense = report["final"]["latency_ms"], report["dense"]["latency_ms"]
    target = float(wanted.amount) * dense if wanted.relative else float(wanted.amount) / PER_MILLISECOND
    return f"the final network takes {taken:.4g} ms of {target:.4g} ms ({taken / target:.1%}), measured end to end"


def _training(result: FitResult) -> dict[str, object]:
    """Sum up a training run: the epoch whose weights were chosen, and the last one."""
    return {
        "epochs": len(result.epochs),
        "chosen_epoch": result.best_epoch,
        "chosen_validation_accuracy": result.best.top1,
        "last_validation_accuracy": result.last.top1,
    }


def _counted(value: float, dense: float) -> str:
    return f"{value:,}" if value == dense else f"{value:,} ({value / dense:.1%})"


def _timed(stage: Mapping[str, Any]) -> str:
    low, high = stage["latency_interval_ms"]
    return f"{stage['latency_ms']:.2f} ({low:.2f} to {high:.2f})"
