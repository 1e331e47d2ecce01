"""Run the sweep: ``python -m benchmarks.zoo``, or ``make zoo``.

It writes ``benchmarks/zoo.json`` after every architecture and ``benchmarks/zoo.md`` from it, and goes on where it was
stopped as long as neither cutback nor the libraries have changed. Parts of it (``--only``) go to ``runs/zoo``.
"""

import argparse
import os
import shlex
import sys
from collections import Counter
from pathlib import Path

from benchmarks.zoo import libraries, records
from benchmarks.zoo.catalogue import entries
from benchmarks.zoo.measure import PASSES, SILENT, measure, row_of
from benchmarks.zoo.page import page
from benchmarks.zoo.workers import Failure, run

ROOT = Path(__file__).resolve().parent.parent.parent


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description="Cut and prove the public zoos.")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="name, zoo:name or timm module")
    parser.add_argument("--failed", type=Path, metavar="RECORD", help="only what does not pass in this zoo.json")
    parser.add_argument("--limit-seconds", type=float, default=300, help="for each architecture")
    parser.add_argument(
        "--limit-gigabytes",
        type=float,
        default=10,
        help="of memory, for each architecture; those that need more run again alone, with that of all jobs",
    )
    parser.add_argument("--jobs", type=int, default=2, help="architectures at once")
    parser.add_argument("--fresh", action="store_true", help="measure again what is on record")
    parser.add_argument("--out", type=Path, help="folder (default: benchmarks, or runs/zoo for a part of the sweep)")
    return parser.parse_args(words)


def _short(reason: str) -> bool:
    """Say whether a row failed for want of memory: it is tried again alone, with the memory of all jobs."""
    return "MemoryError" in reason or "allocate memory" in reason


def main(words: list[str]) -> int:
    """Run what the command line asks for; the exit code is 1 where anything is silently wrong."""
    options = arguments(words)
    part = bool(options.only or options.failed)
    out = options.out or (ROOT / "runs" / "zoo" if part else ROOT / "benchmarks")
    libraries.timm()
    wanted = entries(options.only)
    conditions = records.conditions()
    before, rows = records.read(out / "zoo.json")
    if before != conditions:
        rows = {}
    if options.failed:
        passed = {key for key, row in records.read(options.failed)[1].items() if row.outcome == PASSES}
        wanted = [entry for entry in wanted if entry.key not in passed]
    due = [entry for entry in wanted if options.fresh or entry.key not in rows]
    limits = {"jobs": options.jobs, "seconds": options.limit_seconds, "gigabytes": options.limit_gigabytes}
    together = {"jobs": 1, "seconds": options.limit_seconds, "gigabytes": options.limit_gigabytes * options.jobs}
    everything = {entry.key: number for number, entry in enumerate(entries())}
    for one_by_one in (False, True):
        if one_by_one:
            due = [entry for entry in due if rows[entry.key].outcome != PASSES and _short(rows[entry.key].reason)]
        for done, (entry, found) in enumerate(run(measure, due, **(together if one_by_one else limits)), start=1):
            row = found
            if isinstance(found, Failure):
                row = row_of(entry)
                row.reason = found.reason
            rows[entry.key] = row
            ordered = sorted(rows.values(), key=lambda row: everything.get(row.key, len(everything)))
            records.write(out / "zoo.json", conditions, ordered)
            removed = f"{row.removed:.0%} of the parameters removed"
            seconds = f"{sum(row.seconds.values()):.0f} s"
            sys.stdout.write(f"[{done}/{len(due)}] {row.key}: {row.outcome}, {removed}, {seconds} {row.reason[:200]}\n")
            sys.stdout.flush()
    shown = [rows[entry.key] for entry in wanted if entry.key in rows] if part else list(rows.values())
    command = shlex.join(["python", "-m", "benchmarks.zoo", *words])
    (out / "zoo.md").write_text(page(shown, conditions, records.machine(), command), encoding="utf-8")
    counts = Counter(row.outcome for row in shown)
    sys.stdout.write(", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) + f"; {out}/zoo.md\n")
    return 1 if counts[SILENT] else 0


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.exit(main(sys.argv[1:]))
