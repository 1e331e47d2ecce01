"""LeNet-5 on MNIST at 30 % of its MACs: train, prune, fine-tune with the command, and record what came out.

Run ``python benchmarks/mnist_lenet5.py --data DIR`` on an idle machine; DIR holds the idx files, gzipped or not.
The result goes to ``benchmarks/mnist_lenet5.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "mnist_lenet5.md"
DATA_FOLDERS = (ROOT / "data" / "MNIST", ROOT.parent / "shared" / "data" / "MNIST")
OPTIONS = ("--budget", "macs=30%", "--train", "3", "--finetune", "3", "--batch-size", "64", "--seed", "0")
LOWEST_DENSE, MOST_LOST, LONGEST_SECONDS = 0.985, 0.005, 300
STAGES = {"dense": "dense", "cut": "after cut", "final": "after fine-tune"}


def prune(data: Path) -> dict[str, Any]:
    """Run the command and return its report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cutback", "prune", "cutback:lenet5", "--data", f"mnist:{data}", *OPTIONS]
        done = subprocess.run(
            [*command, "--out", str(Path(folder) / "lenet5"), "--json"], stdout=subprocess.PIPE, check=True, cwd=ROOT
        )
    return json.loads(done.stdout)


def bounds(report: dict[str, Any]) -> dict[str, bool]:
    """Return what was to be reached, and whether it was."""
    dense, final = report["dense"], report["final"]
    return {
        f"dense accuracy at least {LOWEST_DENSE:.1%}": dense["accuracy"] >= LOWEST_DENSE,
        "at most 30 % of the MACs": final["macs"] <= 0.3 * dense["macs"],
        f"at most {MOST_LOST * 100:.1f} points lost": final["accuracy"] >= dense["accuracy"] - MOST_LOST,
        f"within {LONGEST_SECONDS // 60} minutes": report["seconds"] <= LONGEST_SECONDS,
    }


def table(report: dict[str, Any]) -> str:
    """Return the page with the results."""
    rows = [
        ("test accuracy", lambda stage: f"{stage['accuracy']:.2%}"),
        ("validation accuracy", lambda stage: f"{stage['validation_accuracy']:.2%}"),
        ("parameters", lambda stage: f"{stage['params']:,}"),
        ("MACs", lambda stage: f"{stage['macs']:,} ({stage['macs'] / report['dense']['macs']:.1%})"),
        ("latency, ms (95 % interval)", _latency),
        ("file size, bytes", lambda stage: f"{stage['bytes']:,}"),
    ]
    machine, versions = report["machine"], report["versions"]
    where = f"{machine['system']}, {machine['cpus']} CPUs, threads: {machine['threads']}, device: {machine['device']}"
    lines = [
        "# LeNet-5 on MNIST at 30 % of the MACs",
        "",
        "Written by `python benchmarks/mnist_lenet5.py`. Accuracy is that of the 10,000 test pictures, read once for",
        "each column; epochs were chosen on 5,000 validation pictures cut from the training set.",
        "",
        f"| | {' | '.join(STAGES.values())} |",
        "|---|---:|---:|---:|",
        *(f"| {title} | {' | '.join(show(report[name]) for name in STAGES)} |" for title, show in rows),
        "",
        f"- command: `cutback prune cutback:lenet5 --data mnist:DIR {' '.join(OPTIONS)}`",
        f"- wall time: {report['seconds']:.0f} s with everything, on {where}",
        f"- versions: cutback {versions['cutback']}, torch {versions['torch']}, Python {versions['python']}",
        *(f"- {bound}: {'yes' if reached else 'NO'}" for bound, reached in bounds(report).items()),
    ]
    return "\n".join(lines) + "\n"


def _latency(stage: dict[str, Any]) -> str:
    low, high = stage["latency_interval_ms"]
    return f"{stage['latency_ms']:.2f} ({low:.2f} to {high:.2f})"


def main() -> int:
    """Run, record, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of MNIST's idx files")
    given = parser.parse_args().data
    found = given or next((folder for folder in DATA_FOLDERS if folder.is_dir()), None)
    if found is None:
        sys.stderr.write("skipped: no MNIST here; name its folder with --data DIR\n")
        return 0
    report = prune(found.resolve())
    RESULT.write_text(table(report), encoding="utf-8")
    sys.stdout.write(table(report))
    return 0 if all(bounds(report).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
