"""The scoreboard as a page."""

from collections.abc import Mapping, Sequence

from benchmarks.zoo.catalogue import SUITES, TIMM_SUITES
from benchmarks.zoo.measure import ERROR, LEAST_REMOVED, PASSES, REFUSES, SILENT, Row

TARGETS = dict.fromkeys([*SUITES, "timm convolutional"], 0.97) | {"timm attention or hybrid": 0.8}
_LONGEST = 300
_COLUMNS = (
    *("architecture", "size", "parameters", "groups", "prunable", "removed", "MACs"),
    *("proof error", "caught", "seconds", "outcome"),
)


def page(rows: Sequence[Row], conditions: Mapping[str, str], machine: str, command: str) -> str:
    """Return the scoreboard in Markdown."""
    suites = [suite for suite in (*SUITES, *TIMM_SUITES) if any(row.suite == suite for row in rows)]
    lines = [
        "# The scoreboard",
        "",
        f"Written by `{command}`. A row passes when at half the channels the parameters fall by at least",
        f"{LEAST_REMOVED:.0%} without any hint, the proof holds, and the proof catches a plan in which one consumer",
        "column is swapped with a removed one. A row refuses when cutback names what it cannot cut; silent is what",
        "must never happen: a wrong network without an error.",
        "",
        f"Versions: {', '.join(f'{name} {version}' for name, version in conditions.items())}.",
        f"Machine: {machine}; one thread a process. Pictures are as small as the architecture",
        "accepts; weights are random.",
        "",
        "| group | rows | pass | share | aim | refuse | error | silent |",
        "|---|---|---|---|---|---|---|---|",
        *(_summary(suite, [row for row in rows if row.suite == suite]) for suite in suites),
    ]
    for suite in suites:
        lines += [
            "",
            f"## {suite}",
            "",
            "Prunable: share of the parameters that can go at all. Removed, MACs: parameters gone and MACs left at",
            "half the channels. Seconds: trace, plan, proof.",
            "",
            f"| {' | '.join(_COLUMNS)} |",
            f"|{'---|' * len(_COLUMNS)}",
            *(_line(row) for row in rows if row.suite == suite),
        ]
    lines += ["", "## What keeps channels", ""]
    lines += [f"- `{row.key}`: {_cell('; '.join(row.boundaries[:4]))}" for row in rows if row.boundaries]
    return "\n".join(lines) + "\n"


def _summary(suite: str, rows: Sequence[Row]) -> str:
    """Return one group's line of the summary."""
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in (PASSES, REFUSES, ERROR, SILENT)}
    share = counts[PASSES] / len(rows)
    return (
        f"| {suite} | {len(rows)} | {counts[PASSES]} | {share:.1%} | {TARGETS[suite]:.0%} "
        f"| {counts[REFUSES]} | {counts[ERROR]} | {counts[SILENT]} |"
    )


def _line(row: Row) -> str:
    """Return one architecture's line."""
    name = row.key.partition(":")[2]
    name = name if row.family == name else f"{name} ({row.family})"
    proof = "-" if row.proof_error is None else f"{row.proof_error:.1e}{' (float64)' if row.in_double else ''}"
    caught = {True: "yes", False: "NO", None: "-"}[row.caught]
    seconds = " + ".join(f"{value:.1f}" for value in row.seconds.values()) or "-"
    outcome = row.outcome if row.outcome == PASSES else f"{row.outcome}: {_cell(row.reason)}"
    return (
        f"| {name} | {row.size} | {row.params / 1e6:.1f}M | {row.groups} | {row.prunable:.0%} | {row.removed:.0%} "
        f"| {row.macs:.0%} | {proof} | {caught} | {seconds} | {outcome} |"
    )


def _cell(text: str) -> str:
    """Return text that fits a table's cell."""
    text = " ".join(text.replace("|", "/").split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
