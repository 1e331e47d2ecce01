"""Pages of small-scale experiments: what was tried, on which machine, tables, and which bounds were met."""

from collections.abc import Sequence

from benchmarks.zoo.records import machine

Check = tuple[bool, str]
"""Whether a bound was met, and which."""
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, heads and rows."""


def page(title: str, about: str | None, tables: Sequence[Table], checks: Sequence[Check]) -> str:
    """Return the page.

    Args:
        title: of the page.
        about: the script's docstring, of which the first paragraph is left out.
        tables: what was found.
        checks: the bounds.

    Example:
        >>> page("Tried", None, [], [(False, "at least 0.9")]).splitlines()[-1]
        '- MISSED: at least 0.9'
    """
    lines = [f"# {title}", "", (about or "").partition("\n\n")[2], machine(), ""]
    for heading, heads, rows in tables:
        lines += [f"## {heading}", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += [""]
    lines += [f"- {'met' if met else 'MISSED'}: {text}" for met, text in checks]
    return "\n".join(lines) + "\n"
