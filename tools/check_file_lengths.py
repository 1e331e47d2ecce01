"""Fail where a Python file has outgrown the limit: a file that long holds more than one idea."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "benchmarks", "tools")
LIMIT = 500


def too_long(root: Path, limit: int = LIMIT) -> list[tuple[Path, int]]:
    """Return each Python file in the checked folders of ``root`` with more than ``limit`` lines, and its length."""
    files = sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py"))
    lengths = ((file.relative_to(root), len(file.read_text(encoding="utf-8").splitlines())) for file in files)
    return [(file, length) for file, length in lengths if length > limit]


if __name__ == "__main__":
    offenders = too_long(ROOT)
    if offenders:
        sys.exit("\n".join(f"{file}: {length} lines, the limit is {LIMIT}; split it" for file, length in offenders))
