"""Under which circumstances latency is stated: batch, threads, device; and where measurements are kept."""

import functools
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from cutback.errors import UserMistake


@dataclass(frozen=True)
class LatencySetting:
    """What a latency in milliseconds refers to.

    Attributes:
        batch: samples in one forward pass.
        threads: CPU threads within an operation; ``None`` for PyTorch's present setting.
        cache: folder in which measurements are kept; ``None`` for ``cutback`` in the user's cache folder
            (``XDG_CACHE_HOME``, else ``~/.cache``).
    """

    batch: int = 1
    threads: int | None = None
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UserMistake: the batch or the number of threads is no whole number above 0.
        """
        for name, number in (("batch", self.batch), ("threads", 1 if self.threads is None else self.threads)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise UserMistake(f"latency is stated for a {name} of at least 1, not {number!r}")

    @property
    def threads_used(self) -> int:
        """CPU threads that a measurement in this setting uses."""
        return torch.get_num_threads() if self.threads is None else self.threads

    @property
    def folder(self) -> Path:
        """Folder in which measurements are kept."""
        return cache_folder("latency") if self.cache is None else Path(self.cache)

    def describe(self, device: torch.device) -> str:
        """Say in words what a latency refers to: ``batch 1, cpu, 2 threads``."""
        threads = self.threads_used
        return f"batch {self.batch}, {device}, {threads} thread{'s' if threads > 1 else ''}"


def cache_folder(name: str) -> Path:
    """Return the folder of the user's cache that holds one kind of findings; it need not exist.

    Raises:
        UserMistake: no folder is known to be the user's.
    """
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise UserMistake(f"no cache folder is known ({error}); name one by setting XDG_CACHE_HOME") from error
    return Path(home) / "cutback" / name


def environment(device: torch.device, threads: int) -> dict[str, str | int]:
    """Return what a measured time depends on beside the call itself.

    Args:
        device: where the model computes.
        threads: CPU threads within an operation.
    """
    found: dict[str, str | int] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "torch": torch.__version__,
        "threads": threads,
        "float32": torch.get_float32_matmul_precision(),
        "mkldnn": bool(torch.backends.mkldnn.enabled),
    }
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        found |= {"cudnn": cudnn.version() or 0, "tf32": cudnn.allow_tf32, "benchmark": cudnn.benchmark}
    return found


@functools.cache
def _processor() -> str:
    """Return what the system tells of the CPU's model; where that is nothing, the name of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return _model_of(found) or f"{platform.processor() or platform.machine()} {platform.node()}"


def _model_of(found: Mapping[str, str]) -> str:
    """Return the model of a CPU from the system's list of its properties; empty where it is not told."""
    x86 = ("model name", "model", "stepping")
    arm = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
    return " ".join(found[name] for name in (*x86, *arm) if found.get(name))
