"""What a scan has found so far, in memory and in a file, so that one that was interrupted goes on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from cutback.errors import UserMistake
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.measure.whole_file import write_whole


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
    def opened(cls, cache: str | Path | None, graph: Graph, label: str) -> "Found":
        """Read what an earlier scan of the same weights and the same forward pass has found.

        A damaged file counts for nothing.
        """
        if cache is None:
            return cls(None, {})
        digest = hashlib.sha256(label.encode())
        for node in graph.captures[0].graph.nodes:
            digest.update(f"{node.format_node()}\n".encode())
        for name, tensor in {**state_tensors(graph.model), **graph.captures[0].constants}.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        file = Path(cache) / f"{digest.hexdigest()[:32]}.json"
        return cls(file, _held(file))

    def add(self, key: str, accuracy: float) -> None:
        """Note a result, on disk too, beside what another scan may have added meanwhile.

        Raises:
            UserMistake: the file cannot be written.
        """
        self.accuracies[key] = accuracy
        if self.file is None:
            return
        try:
            write_whole(self.file, json.dumps({**_held(self.file), **self.accuracies}))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserMistake(
                f"cannot keep the scan in {self.file.parent}: {reason}; name another cache (on the command line it is "
                "in the folder that XDG_CACHE_HOME names)"
            ) from error


def _held(file: Path) -> dict[str, float]:
    """Return the sound entries of a file; nothing where there is none, or where it is damaged."""
    try:
        document: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    held = document if isinstance(document, Mapping) else {}
    return {str(key): value for key, value in held.items() if isinstance(value, float) and 0 <= value <= 1}
