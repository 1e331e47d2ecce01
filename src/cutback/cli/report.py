"""The report of a run: one JSON document, and the table made of it."""

import json
import os
import platform
import shlex
import shutil
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
from cutback.cli.models import Built
from cutback.cli.request import Request
from cutback.cli.staging import write_whole
from cutback.errors import SaveError
from cutback.measure import Latency
from cutback.planning.budget import parse_budgets
from cutback.planning.plan import Plan
from cutback.planning.quantities.latency import PER_MILLISECOND
from cutback.planning.quantity import shown
from cutback.train import Data
from cutback.train.task import CLASSIFICATION, Task

REPORT_FILE = "report.json"
REPORT_VERSION = 2
IN_TABLE = ("macs", "params", "size")
STAGES = {"dense": "dense", "cut": "after cut", "final": "after recovery"}
NO_TRAINING: dict[str, object] = {"epochs": 0, "chosen_epoch": 0}


@dataclass(frozen=True)
class Measured:
    """What a network is worth at one point of the run.

    Attributes:
        accuracy: the task's figure on the test split; for classification accuracy, in 0..1.
        validation_accuracy: the same on the validation split.
        macs: multiply-accumulates for one picture.
        params: number of parameters.
        bytes: size as a safetensors file.
        memory: what a forward pass takes at run time in all, in bytes (see ``measure.run_time_memory``), for the
            pictures that latencies refer to.
    """

    accuracy: float
    validation_accuracy: float
    macs: int
    params: int
    bytes: int
    memory: int


def file_size(model: nn.Module) -> int:
    """Return the size in bytes that a model's state has as a safetensors file, tied tensors once."""
    distinct: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        distinct.setdefault(id(tensor), (name, tensor.detach().cpu().contiguous().clone()))
    return len(serialise_tensors(dict(distinct.values()), metadata={"format": "pt"}))


def make_report(
    request: Request,
    data: Data,
    task: Task,
    *,
    measured: Mapping[str, Measured],
    last_epoch: Mapping[str, float] | None,
    latencies: Mapping[str, Latency],
    findings: Mapping[str, Any],
    plan: Plan,
    reload: tuple[str, ...],
    seconds: float,
) -> dict[str, Any]:
    """Put a run's findings into one document for JSON.

    Accuracies lie in 0..1, times are milliseconds. For a task of the user's own, ``metric`` stands in the place of
    ``accuracy`` in every name.

    Args:
        request: what was asked for.
        data: the data.
        task: what the network is for.
        measured: the networks at the end, by stage.
        last_epoch: figures of the network after the last epoch on both splits, where a training was the last step.
        latencies: of the same networks.
        findings: what the parts of the run have found.
        plan: leads from the dense network to the final one.
        reload: Python lines that load the result.
        seconds: how long the run took.
    """
    final = {"last_epoch_accuracy": None, "last_epoch_validation_accuracy": None}
    if last_epoch is not None:
        final = {
            "last_epoch_accuracy": last_epoch["test"],
            "last_epoch_validation_accuracy": last_epoch["validation"],
        }
    document = {
        "format": "cutback report",
        "version": REPORT_VERSION,
        "command": shlex.join(("cutback", *request.arguments)),
        "model": request.model,
        "task": {"name": task.name, "higher_is_better": task.higher_is_better},
        **{
            name: {**asdict(stage), **(final if name == "final" else {}), **_timing(latencies[name])}
            for name, stage in measured.items()
        },
        "baseline": findings["baseline"],
        "method": findings.get("method"),
        "rewind": request.rewind,
        "recovery": findings["recovery"],
        "finetune": findings.get("finetune", NO_TRAINING),
        "plan": {
            "budgets": plan.budgets,
            "costs": {name: [cost.before, cost.after] for name, cost in plan.costs.items()},
            "kept": {group.name: [len(group.kept), group.total] for group in plan.groups},
            "notes": plan.notes,
        },
        "proof": findings["proof"],
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
    return document if task.name == CLASSIFICATION else _renamed(document)


def reload_lines(built: Built, request: Request) -> tuple[str, ...]:
    """Return the Python lines that load the result."""
    return (*built.imports, f"model = cutback.load({str(request.folder)!r}, build=lambda: {built.expression})")


def write_result(model: nn.Module, plan: Plan, report: Mapping[str, object], folder: Path) -> None:
    """Write weights, plan and report into a run's folder, the report last: where it is, all is.

    Raises:
        SaveError: they cannot be written.
    """
    staged = folder / ".result"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        cutback.save(model, plan, staged)
        for path in sorted(staged.iterdir()):
            path.replace(folder / path.name)
    except OSError as error:
        raise SaveError(f"cannot write {folder}: {error.strerror or error}; make room in it") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    write_whole(folder / REPORT_FILE, json.dumps(report, indent=2) + "\n")


def _renamed(value: Any) -> Any:  # noqa: ANN401 (nests of JSON)
    """Call what is no accuracy ``metric``."""
    if isinstance(value, Mapping):
        return {key.replace("accuracy", "metric"): _renamed(item) for key, item in value.items()}
    return [_renamed(item) for item in value] if isinstance(value, list) else value


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
        "augmentation": str(data.augmentation),
        "notes": data.notes,
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
    accuracy = report["task"]["name"] == CLASSIFICATION
    word, shown_as = ("accuracy", ".2%") if accuracy else ("metric", ".4g")
    table.add_row(f"test {word}", *(format(stage[word], shown_as) for stage in stages.values()))
    table.add_row(f"validation {word}", *(format(stage[f"validation_{word}"], shown_as) for stage in stages.values()))
    last = report["final"][f"last_epoch_{word}"]
    if last is not None and last != report["final"][word]:
        table.add_row(f"test {word}, last epoch", "", "", format(last, shown_as))
    for key, title in (("params", "parameters"), ("macs", "MACs")):
        table.add_row(title, *(_counted(stage[key], dense[key]) for stage in stages.values()))
    machine = report["machine"]
    where = f"batch {machine['latency_batch']}, threads: {machine['threads']}"
    table.add_row(f"latency, ms (95 %), {where}", *(_timed(stage) for stage in stages.values()))
    table.add_row("file size, bytes", *(_counted(stage["bytes"], dense["bytes"]) for stage in stages.values()))
    memory = (_counted(stage["memory"], dense["memory"]) for stage in stages.values())
    table.add_row(f"run-time memory, bytes, batch {machine['latency_batch']}", *memory)
    out.print(table)
    for name, (before, after) in report["plan"]["costs"].items():
        if name not in IN_TABLE:
            out.print(f"{name}: {shown(name, before)} -> {shown(name, after)} ({after / max(before, 1):.1%})")
    _print_recovery(report["recovery"], word, shown_as)
    proof = report["proof"]
    error = f", relative error at most {proof['error']:.0e}" if proof else ", at each cut of the method"
    out.print(f"\nproven: equal to the original with the removed channels silenced{error}")
    method = report["method"]
    if method is not None and method.get("records"):
        found = (f"{key} {_number(value)}" for key, value in method["records"].items())
        out.print(f"{method['name']}: {', '.join(found)}")
    if report.get("rewind"):
        out.print("rewound: the final network was trained from scratch, from new weights")
    for note in (*report["plan"]["notes"], *report["data"]["notes"]):
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


def _print_recovery(rows: list[Mapping[str, Any]], word: str, shown_as: str) -> None:
    """Print what each recovery step gave, on the validation split."""
    if not rows:
        return
    table = Table("recovery step", f"validation {word} before", "after", "last epoch", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        last = row.get(f"last_validation_{word}")
        figures = (row["validation_before"], row["validation_after"])
        table.add_row(
            row["step"],
            *(format(figure, shown_as) for figure in figures),
            "" if last is None else format(last, shown_as),
        )
    out = console.stdout()
    out.print("")
    out.print(table)
    for row in rows:
        for note in row.get("notes", ()):
            out.print(f"{row['step']}: {note}")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _counted(value: float, dense: float) -> str:
    return f"{value:,}" if value == dense else f"{value:,} ({value / dense:.1%})"


def _timed(stage: Mapping[str, Any]) -> str:
    low, high = stage["latency_interval_ms"]
    return f"{stage['latency_ms']:.2f} ({low:.2f} to {high:.2f})"
