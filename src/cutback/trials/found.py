"""What a scan has found so far, in memory and in a file, so that one that was interrupted goes on."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cutback.errors import UserMistake
from cutback.graph.clone import state_tensors


@dataclass(frozen=True, eq=False)
class Found:
    """Accuracies by what was cut.

    Attributes:
        file: where they are kept; ``None`` for nowhere.
        accuracies: in 0..1, by a key that says which slices stay.
    """

    file: Path | None
    accuracies: dict[str, float]

    @classmethod
    def opened(cls, cache: str | Path | None, model: nn.Module, label: str) -> "Found":
        """Read what an earlier scan of the same weights has found; a damaged file counts for nothing."""
        if cache is None:
            return cls(None, {})
        digest = hashlib.sha256(label.encode())
        for name, tensor in state_tensors(model).items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        file = Path(cache) / f"{digest.hexdigest()[:32]}.json"
        try:
            document: object = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            document = {}
        held = document if isinstance(document, Mapping) else {}
        sound = {str(key): value for key, value in held.items() if isinstance(value, float) and 0 <= value <= 1}
        return cls(file, sound)

    def add(self, key: str, accuracy: float) -> None:
        """Note a result, on disk too.

        Raises:
            UserMistake: the file cannot be written.
        """
        self.accuracies[key] = accuracy
        if self.file is None:
            return
        staged = self.file.with_name(f".{self.file.name}.{os.getpid()}.partial")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            staged.write_text(json.dumps(self.accuracies), encoding="utf-8")
            staged.replace(self.file)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserMistake(f"cannot keep the scan in {self.file.parent}: {reason}; name another cache") from error
