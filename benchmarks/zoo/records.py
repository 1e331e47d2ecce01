"""The rows on disk: written after each architecture, read again when a sweep goes on."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import cutback
from benchmarks.zoo.catalogue import FOLDER
from benchmarks.zoo.measure import Row

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy")


def conditions() -> dict[str, str]:
    """Return everything that rows must share to stand in one table."""
    digest = hashlib.sha256()
    package = Path(cutback.__file__).parent
    for file in [*sorted(package.rglob("*.py")), FOLDER / "choices.json", FOLDER / "measure.py"]:
        digest.update(file.name.encode() + file.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"cutback": cutback.__version__, "source": digest.hexdigest()[:16], **versions}


def machine() -> str:
    """Describe the machine class."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system, kind = platform.system(), platform.machine()
    return f"{system} {kind}, {os.cpu_count()} CPUs, {memory:.0f} GiB, Python {platform.python_version()}"


def read(file: Path) -> tuple[dict[str, str], dict[str, Row]]:
    """Return the conditions and rows of a record; empty ones where there is none."""
    if not file.exists():
        return {}, {}
    held = json.loads(file.read_text(encoding="utf-8"))
    return held["conditions"], {row["key"]: Row(**row) for row in held["rows"]}


def write(file: Path, found: dict[str, str], rows: list[Row]) -> None:
    """Replace a record as a whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    held = {"conditions": found, "machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
    staged = file.with_suffix(".tmp")
    staged.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    staged.replace(file)
