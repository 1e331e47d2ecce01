"""Nests of plain values and tensors on disk: ``tree.json`` beside ``tensors.safetensors``, hashed, without pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from cutback.errors import CorruptFile, SaveError, UnsupportedVersion
from cutback.io.folder import write_folder

TREE_VERSION = 1
FORMAT = "cutback tree"
TREE_FILE = "tree.json"
TENSORS_FILE = "tensors.safetensors"


def save_tree(tree: object, directory: Path) -> None:
    """Write a nest of dicts, lists, tuples, tensors, numbers, text, truth values and ``None``: whole or not at all.

    Tensors come back bit for bit, in the order of dimensions that they have in memory, on the CPU; one that is in the
    nest twice comes back as two.

    Args:
        tree: the nest; keys of dicts are text or whole numbers.
        directory: the folder to write, which gets its name once it is whole.

    Raises:
        SaveError: the nest holds something else, or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    written = _encoded(tree, tensors, "")
    content = serialise_tensors(tensors, metadata={"format": "pt"})
    document = {
        "format": FORMAT,
        "version": TREE_VERSION,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "tree": written,
    }
    text = json.dumps({**document, "sha256": _seal(document)}).encode()
    write_folder(directory, {TENSORS_FILE: content, TREE_FILE: text})


def load_tree(directory: Path) -> Any:  # noqa: ANN401 (whatever was saved)
    """Read what ``save_tree`` wrote.

    Raises:
        CorruptFile: a file is missing, truncated or altered.
        UnsupportedVersion: it was written by a newer cutback.
    """
    try:
        text, content = ((directory / name).read_bytes() for name in (TREE_FILE, TENSORS_FILE))
    except OSError as error:
        raise CorruptFile(f"{directory} is not whole: {error.strerror or error} ({error.filename})") from error
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        version = int(document["version"])
        found, sealed = document.pop("sha256"), _seal(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{directory / TREE_FILE} is truncated or damaged ({error})") from error
    if version > TREE_VERSION:
        raise UnsupportedVersion(
            f"{directory} has format version {version}, this cutback reads up to {TREE_VERSION}; upgrade cutback"
        )
    for name, recorded, actual in (
        (TREE_FILE, found, sealed),
        (TENSORS_FILE, document.get("tensors_sha256"), hashlib.sha256(content).hexdigest()),
    ):
        if recorded != actual:
            raise CorruptFile(f"{directory / name} does not match its recorded hash: it was altered")
    try:
        return _decoded(document["tree"], parse_tensors(content))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptFile(f"{directory} does not hold what it should ({type(error).__name__}: {error})") from error


def _seal(document: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _encoded(value: object, tensors: dict[str, Tensor], place: str) -> object:
    """Return a nest as JSON has it; every container is an object that tells its kind. Tensors go to ``tensors``."""
    if value is None or type(value) in {bool, int, float, str}:
        return value
    if isinstance(value, Tensor):
        name = f"{len(tensors)}{place}"
        dense = value.detach().cpu()
        order = _order(dense)
        tensors[name] = dense.permute(order).contiguous().clone()
        return {"tensor": name, "order": order} if order != sorted(order) else {"tensor": name}
    if type(value) in {list, tuple}:
        items = [_encoded(item, tensors, f"{place}.{number}") for number, item in enumerate(value)]  # type: ignore[arg-type]
        return {type(value).__name__: items}
    if isinstance(value, Mapping):
        wrong = next((key for key in value if type(key) not in {str, int}), None)
        if wrong is not None:
            raise SaveError(f"the state{place} has the key {wrong!r}; only text and whole numbers can be keys there")
        return {"dict": [[key, _encoded(item, tensors, f"{place}.{key}")] for key, item in value.items()]}
    raise SaveError(f"the state{place} is a {type(value).__name__}, which cannot be saved; keep plain values in it")


def _decoded(written: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    """Return the nest that was encoded."""
    if not isinstance(written, dict):
        return written
    if "tensor" in written:
        tensor = tensors[written["tensor"]]
        order = written.get("order")
        return tensor if order is None else tensor.permute([order.index(number) for number in range(len(order))])
    if "dict" in written:
        return {key: _decoded(item, tensors) for key, item in written["dict"]}
    kind = "list" if "list" in written else "tuple"
    items = [_decoded(item, tensors) for item in written[kind]]
    return items if kind == "list" else tuple(items)


def _order(tensor: Tensor) -> list[int]:
    """Return a tensor's dimensions from the outermost in memory; as they are numbered where it has gaps or overlaps."""
    numbered = list(range(tensor.dim()))
    order = sorted(numbered, key=lambda d: (-tensor.stride(d), d))
    return order if tensor.permute(order).is_contiguous() and not tensor.is_contiguous() else numbered
