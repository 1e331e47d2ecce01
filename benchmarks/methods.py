"""Published methods side by side: same networks, data, budgets and number of epochs, one ``cutback prune`` a row.

Networks, data and schedules are those of ``benchmarks/protocols.py``. Where a method does not train meanwhile, all
epochs are fine-tuning. The settings below were chosen on the validation split of seed 100, but that SNPFI
judges coalitions on 64 pictures, not on its 256: that is what two cores had time for.

Gradient pruning cuts nothing; its rows say what share of the multiply-accumulates (MACs) of the convolutions' backward
products has no zero gradient entry, and of those of a training step, a third of which is the forward pass. ``plain
training`` is its control: a rate of one in a million, which leaves the gradients as they are.

Run as a script it adds the rows that are missing to ``methods.json`` and writes ``methods.md`` from all of them:
``--data digits --methods l1 taylor --shares 50 --seeds 0``.
"""

import argparse
import contextlib
import io
import json
import shlex
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.protocols import PROTOCOLS, dense
from benchmarks.zoo.records import machine
from cutback.cli.main import main as command_line

HERE = Path(__file__).parent
STORE, SHOWN = HERE / "methods.json", HERE / "methods.md"


@dataclass(frozen=True)
class Entry:
    """How a method is run here.

    Attributes:
        epochs: share of all epochs in which the method prunes.
        settings: its settings that are not the defaults.
        budget: whether it takes one; else it cuts nothing.
        method: its name, where it is not that of the row: a variant for comparison, run where it is asked for.
    """

    epochs: float = 0.0
    settings: tuple[str, ...] = ()
    budget: bool = True
    method: str = ""


FISHER = ("interval=2", "removed=4")
RESREP = ("strength=0.05", "interval=5", "added=8")
ENTRIES = {
    "l1": Entry(),
    "slimming": Entry(0.5, ("sparsity=0.001",)),
    "taylor": Entry(0.5, ("minibatches=5", "units=20")),
    "group-fisher": Entry(0.5, FISHER),
    **{
        f"group-fisher, {setting.replace('=', ' ')}": Entry(0.5, (*FISHER, setting), method="group-fisher")
        for setting in ("normalise=macs", "normalise=none", "importance=gradient", "internal_only=true")
    },
    "aofp": Entry(0.5, ("half=20", "warm_up=0", "threshold=0.3")),
    "oracle": Entry(),
    "resrep": Entry(1.0, RESREP),
    "resrep, coupled true": Entry(1.0, (*RESREP, "coupled=true"), method="resrep"),
    "snpfi": Entry(settings=("images=64",)),
    "functionality": Entry(settings=("steps=0",)),
    "subarchitecture": Entry(0.5),
    "gradient-pruning": Entry(1.0, budget=False),
    "plain training": Entry(1.0, ("rate=0.000001",), budget=False, method="gradient-pruning"),
}


@dataclass(frozen=True)
class Row:
    """One run: what is asked for.

    Attributes:
        data: key of the protocol.
        method: key of its entry.
        share: MACs that go, in per cent; ``None`` where the method cuts nothing.
        seed: of splits, weights and training.
    """

    data: str
    method: str
    share: int | None
    seed: int

    def arguments(self, weights: str) -> list[str]:
        """Return the command line after ``cutback``."""
        protocol, entry = PROTOCOLS[self.data], ENTRIES[self.method]
        while_pruning = round(entry.epochs * protocol.epochs)
        return [
            *("prune", protocol.model, "--data", protocol.data, "--weights", weights, *protocol.options),
            *(
                "--method",
                entry.method or self.method,
                *(part for setting in entry.settings for part in ("--set", setting)),
            ),
            *("--method-epochs", str(while_pruning)),
            *(() if self.share is None else ("--budget", f"macs={100 - self.share}%")),
            *("--finetune", str(protocol.epochs - while_pruning), "--seed", str(self.seed), "--threads", "1"),
        ]


def wanted(key: str, methods: Iterable[str], shares: Iterable[int], seeds: Iterable[int]) -> list[Row]:
    """Return the rows of a selection, in the order of the page."""
    return [
        Row(key, method, share, seed)
        for method in methods
        for share in (shares if ENTRIES[method].budget else (None,))
        for seed in seeds
    ]


def run(row: Row) -> dict[str, Any]:
    """Carry a row out and return what the page says of it."""
    arguments = row.arguments(dense(row.data, row.seed))
    asked = {**asdict(row), "command": shlex.join(["cutback", *arguments]), "machine": machine()}
    told, refusal = io.StringIO(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(told),
        contextlib.redirect_stderr(refusal),
    ):
        code = command_line([*arguments, "--quiet", "--json", "--out", str(Path(folder) / "run")])
    if code:
        return {**asked, "refused": refusal.getvalue().strip().splitlines()[-1]}
    report = json.loads(told.getvalue())
    stages = {name: report[name] for name in ("dense", "cut", "final")}
    return {
        **asked,
        "accuracy": {name: stage["accuracy"] for name, stage in stages.items()},
        "validation": {name: stage["validation_accuracy"] for name, stage in stages.items()},
        "macs": stages["final"]["macs"] / stages["dense"]["macs"],
        "params": stages["final"]["params"] / stages["dense"]["params"],
        "density": report["method"].get("records", {}).get("density"),
        "latency": [stages[name]["latency_ms"] for name in ("dense", "final")],
        "seconds": report["seconds"],
    }


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Return the page that shows all rows: seeds of a budget in one line, commands below."""
    lines = [
        "# Methods side by side",
        "",
        "Written by `python -m benchmarks.methods`, which says how; each run is one `cutback prune`. Accuracy is that",
        "of the test split in per cent, read once a network: of the dense network, after the method and before any",
        "fine-tuning, and at the end; of several seeds the mean, with lowest and highest at the end. Latency is",
        "that of one picture on one thread; seconds are those of the whole run, on a machine that did other things",
        "besides. A difference of a point means nothing: a test split holds some hundred digits or 5,000 pictures.",
        "All have the same number of epochs, those in which a method prunes included (`--method-epochs`): of the few",
        "on CIFAR-10 one that prunes while it trains has fewer left for fine-tuning (`--finetune`).",
    ]
    for key, protocol in PROTOCOLS.items():
        groups: dict[tuple[str, int | None], list[dict[str, Any]]] = defaultdict(list)
        own = [row for row in rows if row["data"] == key]
        for row in own:
            if "refused" not in row:
                groups[row["method"], row["share"]].append(row)
        if not own:
            continue
        lines += ["", f"## {protocol.title}", ""]
        lines += ["| fewer MACs | method | seeds | dense | cut | final | MACs left | latency, ms | seconds |"]
        lines += ["|---|---|---|---:|---:|---:|---:|---:|---:|"]
        for method, share in sorted(groups, key=lambda pair: (pair[1] or 0, pair[0])):
            lines.append(_line(method, share, groups[method, share]))
        lines += ["", protocol.note] if protocol.note else []
        lines += [""] if any("refused" in row for row in own) else []
        lines += [f"- {row['method']} refuses: {row['refused']}" for row in own if "refused" in row]
        lines += ["", "```text", *(row["command"] for row in own), "```"]
    machines = sorted({row["machine"] for row in rows})
    return "\n".join([*lines, "", f"Machine: {'; '.join(machines)}.", ""])


def _line(method: str, share: int | None, rows: Sequence[dict[str, Any]]) -> str:
    """Return one line of the table."""

    def mean(name: str) -> float:
        return 100 * statistics.mean(row["accuracy"][name] for row in rows)

    final = [100 * row["accuracy"]["final"] for row in rows]
    spread = f" ({min(final):.1f} to {max(final):.1f})" if len(final) > 1 else ""
    left = f"{100 * statistics.mean(row['macs'] for row in rows):.1f} %"
    if share is None and all(row.get("density") is not None for row in rows):
        density = statistics.mean(row["density"] for row in rows)
        left += f"; backward {100 * density:.0f} %, training {100 * (1 + 2 * density) / 3:.0f} %"
    before, after = (statistics.mean(row["latency"][place] for row in rows) for place in (0, 1))
    return (
        f"| {'none' if share is None else f'{share} %'} | {method} | {', '.join(str(row['seed']) for row in rows)} "
        f"| {mean('dense'):.1f} | {mean('cut'):.1f} | {mean('final'):.1f}{spread} "
        f"| {left} | {before:.2f} → {after:.2f} "
        f"| {statistics.mean(row['seconds'] for row in rows):.0f} |"
    )


def stored() -> list[dict[str, Any]]:
    """Return the rows that there are."""
    return json.loads(STORE.read_text(encoding="utf-8")) if STORE.is_file() else []


def main() -> int:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--methods", nargs="+", choices=ENTRIES, metavar="NAME")
    parser.add_argument("--shares", nargs="+", type=int, help="else those of each protocol, as with --seeds")
    parser.add_argument("--seeds", nargs="+", type=int)
    asked, plain = parser.parse_args(), [name for name, entry in ENTRIES.items() if not entry.method]
    torch.set_num_threads(1)
    for key in asked.data:
        protocol = PROTOCOLS[key]
        methods = asked.methods or protocol.methods or plain
        for row in wanted(key, methods, asked.shares or protocol.shares, asked.seeds or protocol.seeds):
            if not any(all(known[name] == value for name, value in asdict(row).items()) for known in stored()):
                added = run(row)
                done = [*stored(), added]  # read again: another process may have added rows meanwhile
                STORE.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
                SHOWN.write_text(page(done), encoding="utf-8")
                sys.stdout.write(f"{row.method}: {added.get('refused') or _line(row.method, row.share, [added])}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
