"""What a method says of itself, the table of methods by name, and making one from its name."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Literal, Union, cast, get_args, get_origin, get_type_hints

from cutback.errors import UnknownName, UserMistake
from cutback.graph.graph import Graph
from cutback.registry import Registry, near_misses

if TYPE_CHECKING:
    from cutback.methods.method import Method

Need = Literal["loader", "loss", "evaluate"]
BudgetKind = Literal["hits", "stops_below", "finds_width", "none"]
Simple = bool | int | float | str | None


@dataclass(frozen=True)
class About:
    """What a registered method says of itself, as its class attribute ``about``; the contract tests read it.

    Attributes:
        title: title of the paper.
        authors: its authors, as cited: ``"Li et al."``.
        year: of publication.
        where: venue and arXiv number.
        cuts: whether it makes the model smaller.
        budget: what becomes of a budget. ``hits``: never over, within 1 % of the dense cost below it wherever steps are
            that fine. ``stops_below``: stops at the first step that is not over. ``finds_width``: takes none, widths
            are what it finds. ``none``: takes none and cuts nothing.
        needs: what it takes beyond the training loop's own passes. ``loader``: an iterable of batches
            ``(inputs, labels)`` of the training split. ``loss``: a function of outputs and labels. ``evaluate``: a
            function of a model that returns a figure on the validation split, higher for better.
        trained: whether the steps of the training loop are part of it; false for one that is finished once attached.
    """

    title: str
    authors: str
    year: int
    where: str
    cuts: bool = True
    budget: BudgetKind = "hits"
    needs: tuple[Need, ...] = ()
    trained: bool = True


@dataclass(frozen=True)
class Setting:
    """One setting of a method.

    Attributes:
        name: the keyword argument.
        kind: its type, as written in Python.
        default: its default; ``None`` where there is none.
        required: whether it has to be given.
        meaning: what the docstring of the method says of it.
    """

    name: str
    kind: str
    default: Simple
    required: bool
    meaning: str = ""


@dataclass(frozen=True)
class Description:
    """What ``cutback methods`` prints of a method.

    Attributes:
        name: what users write.
        summary: one line.
        about: paper, and what to expect.
        settings: what can be set, beside the graph, the budget, optimisers, copies and what it ``needs``.
    """

    name: str
    summary: str
    about: About
    settings: tuple[Setting, ...]


methods: Registry[type["Method"]] = Registry("method", "cutback.methods")
"""Methods by name. An entry is a class derived from ``Method`` with an ``About`` as its attribute ``about``; its
docstring's first line is the summary, its keyword arguments of simple types are its settings."""

_GIVEN = ("graph", "budget", "optimizers", "copies", "loader", "loss", "evaluate")


def describe(name: str) -> Description:
    """Return what a registered method is.

    Raises:
        UnknownName: no method has that name.
    """
    entry = methods.get(name)
    summary = (inspect.getdoc(entry) or "").partition("\n")[0]
    return Description(name, summary, entry.about, _settings(entry))


def make_method(
    name: str,
    graph: Graph,
    *,
    settings: Mapping[str, str | Simple] | None = None,
    given: Mapping[str, object] | None = None,
) -> "Method":
    """Make a method from its name, as the command line does.

    Args:
        name: a registered name.
        graph: the traced model.
        settings: its settings; text is read as the type that the setting has.
        given: budget, optimizers, copies, loader, loss and evaluate; what the method does not take is left out.

    Raises:
        UnknownName: no method has that name, or it has no such setting.
        UserMistake: a setting cannot be read, something that is needed is missing, or a budget is given to a method
            that takes none.
        CutbackError: the method refuses the model.
    """
    entry = methods.get(name)
    accepted = inspect.signature(entry).parameters
    known = {setting.name: setting for setting in _settings(entry)}
    read: dict[str, object] = {}
    for key, value in (settings or {}).items():
        setting = known.get(key.replace("-", "_"))
        if setting is None:
            hint = near_misses(key, list(known)) if known else "it has none"
            raise UnknownName(f"method {name!r} has no setting called {key!r}; {hint}")
        read[setting.name] = _read(value, setting, name) if isinstance(value, str) else value
    missing = [key for key, setting in known.items() if setting.required and key not in read]
    if missing:
        raise UserMistake(f"method {name!r} needs {' and '.join(missing)}; give each as NAME=VALUE")
    passed = {key: value for key, value in (given or {}).items() if key in accepted and value is not None}
    lacking = [need for need in entry.about.needs if accepted[need].default is inspect.Parameter.empty]
    lacking = [need for need in lacking if need not in passed]
    if lacking:
        raise UserMistake(f"method {name!r} needs {' and '.join(lacking)}; pass given={{{lacking[0]!r}: ...}}")
    if entry.about.budget in ("finds_width", "none") and (given or {}).get("budget"):
        raise UserMistake(f"method {name!r} takes no budget ({entry.about.budget}); leave it out")
    return cast("Callable[..., Method]", entry)(graph, **passed, **read)


def _settings(entry: type["Method"]) -> tuple[Setting, ...]:
    """Return the settings that a method's constructor takes: those that can be written as text."""
    hints, meanings = get_type_hints(entry.__init__), _meanings(inspect.getdoc(entry) or "")
    found: list[Setting] = []
    for name, parameter in inspect.signature(entry).parameters.items():
        if name in _GIVEN or parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        hint = hints[name]
        if not _is_simple(hint):
            continue
        kind = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        required = parameter.default is inspect.Parameter.empty
        found.append(Setting(name, kind, None if required else parameter.default, required, meanings.get(name, "")))
    return tuple(found)


def _meanings(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each argument, in one line each."""
    lines = docstring.partition("\nArgs:\n")[2].partition("\n\n")[0].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if not line.startswith("     "):
            name, _, line = line.strip().partition(": ")  # noqa: PLW2901 (what is left of it)
        found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found


def _is_simple(hint: object) -> bool:
    """Whether some value of a type can be written as text: that of a number, text or choice, or a union with one."""
    if get_origin(hint) in (Union, UnionType):
        return any(map(_is_simple, get_args(hint)))
    return hint in (bool, int, float, str) or get_origin(hint) is Literal


def _read(text: str, setting: Setting, method: str) -> Simple:
    """Read a setting that was written as text."""
    kinds = [kind.strip() for kind in setting.kind.split("|")]
    if "None" in kinds and text.lower() == "none":
        return None
    if "bool" in kinds and text.lower() in {"true", "false", "yes", "no", "1", "0"}:
        return text.lower() in {"true", "yes", "1"}
    for kind, read in (("int", int), ("float", float)):
        if kind in kinds:
            try:
                return read(text)
            except ValueError:
                continue
    if "str" in kinds or "Literal" in setting.kind:
        return text
    raise UserMistake(f"{setting.name} of method {method!r} is {text!r}; write a value of type {setting.kind}")
