"""Pruned models on disk: ``model.safetensors`` beside ``plan.json``."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor, nn

from cutback.errors import ArchitectureMismatch, CorruptFile, SaveError, UnsupportedVersion
from cutback.graph.architecture import hash_of
from cutback.io.folder import write_folder
from cutback.planning.plan import Plan
from cutback.surgery.converting import graph_form_again
from cutback.surgery.cut import cut_fresh
from cutback.surgery.graph_form import GraphForm
from cutback.surgery.recipes import Recipe

CHECKPOINT_VERSION = 2
"""A checkpoint of a model in its own class is written as version 1, which knows no other form."""
WEIGHTS_FILE = "model.safetensors"
PLAN_FILE = "plan.json"


def save_checkpoint(model: nn.Module, plan: Plan, directory: Path, *, overwrite: bool) -> None:
    """Write a checkpoint. See ``cutback.save``."""
    if hash_of(model) != plan.result:
        raise ArchitectureMismatch(
            f"this {type(model).__name__} is not what the plan leads to; save the model the plan was applied to, and "
            "after several cuts pass first.then(second)"
        )
    if directory.exists() and not directory.is_dir():
        raise SaveError(f"{directory} is a file; name a folder")
    if directory.exists() and any(directory.iterdir()) and not overwrite:
        raise SaveError(f"{directory} exists and is not empty; name another folder or pass overwrite=True")
    tensors, aliases = _distinct(model)
    weights = serialise_tensors(tensors, metadata={"format": "pt"})
    text = plan.to_json()
    document: dict[str, object] = {
        "format": "cutback checkpoint",
        "version": CHECKPOINT_VERSION if isinstance(model, GraphForm) else 1,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "aliases": aliases,
        "plan": text,
    }
    if isinstance(model, GraphForm):
        if model.recipe.inputs is None:
            raise SaveError("the example inputs hold objects other than tensors, plain values and nests of these")
        document["graph_form"] = model.recipe.to_document()
    document["sha256"] = _seal(document)
    write_folder(directory, {WEIGHTS_FILE: weights, PLAN_FILE: json.dumps(document, indent=1).encode()})


def load_checkpoint(directory: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Read a checkpoint. See ``cutback.load``."""
    plan, weights, aliases, recipe = _read(directory)
    model = build()
    if not isinstance(model, nn.Module):
        raise ArchitectureMismatch(f"build returned {type(model).__name__}; it must return the dense torch module")
    if recipe is not None and not isinstance(model, GraphForm):
        model = graph_form_again(model, recipe)
    cut_fresh(model, plan)
    state = {**weights, **{alias: weights[name] for alias, name in aliases.items()}}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and name in state and tensor.dtype != state[name].dtype:
            tensor.data = tensor.data.to(state[name].dtype)
    try:
        model.load_state_dict(state)  # in place: ties and devices stay those of the fresh instance
    except RuntimeError as error:
        raise ArchitectureMismatch(f"the saved values do not fit the model that build returned: {error}") from error
    return model


def read_plan(directory: Path) -> Plan:
    """Return the plan of a checkpoint. See ``cutback.load_plan``."""
    return _read(directory)[0]


def _seal(document: Mapping[str, object]) -> str:
    """Hash a document but for the hash it holds."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _distinct(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the state's tensors, each once and contiguous, and further names of tied ones."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise SaveError(f"{name} in the model's state is {type(tensor).__name__}, not a tensor; it cannot be saved")
        known = first.setdefault(id(tensor), name)
        if known == name:
            tensors[name] = tensor.detach().cpu().contiguous().clone()
        else:
            aliases[name] = known
    return tensors, aliases


def _read(directory: Path) -> tuple[Plan, dict[str, Tensor], dict[str, str], Recipe | None]:
    """Read and check both files; a recipe is there where the model was in graph form."""
    for name in (PLAN_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise CorruptFile(f"{directory} has no {name}; pass a folder that cutback.save wrote")
    try:
        document = json.loads((directory / PLAN_FILE).read_bytes())
        if document["format"] != "cutback checkpoint":
            raise ValueError(f"its format is {document['format']!r}")
        version = int(document["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{directory / PLAN_FILE} is truncated or damaged ({error}); copy it again") from error
    if version > CHECKPOINT_VERSION:
        raise UnsupportedVersion(
            f"{directory} has format version {version}, this cutback reads up to {CHECKPOINT_VERSION}; upgrade cutback"
        )
    weights = (directory / WEIGHTS_FILE).read_bytes()
    found = {PLAN_FILE: _seal(document), WEIGHTS_FILE: hashlib.sha256(weights).hexdigest()}
    for name, key in ((PLAN_FILE, "sha256"), (WEIGHTS_FILE, "weights_sha256")):
        if document.get(key) != found[name]:
            raise CorruptFile(f"{directory / name} does not match its recorded hash: it was altered; copy it again")
    text: str = document["plan"]
    aliases: dict[str, str] = document["aliases"]
    try:
        tensors = parse_tensors(weights)
    except SafetensorError as error:
        raise CorruptFile(f"{directory / WEIGHTS_FILE} is not a safetensors file ({error}); copy it again") from error
    recipe = Recipe.from_document(document["graph_form"]) if "graph_form" in document else None
    return Plan.from_json(text), tensors, aliases, recipe
