"""What a network is trained for: what is minimised, and by which figure networks are compared."""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import CutbackError, DataError, TaskError
from cutback.registry import near_misses
from cutback.train.evaluation import check_labels, logits
from cutback.train.user_code import load_module, reason_of

CLASSIFICATION = "classification"
NAMES = {
    "loss": "loss(outputs, targets)",
    "metric": "metric(model, batches)",
    "objective": "objective(model, inputs, targets)",
    "distillation": "distillation(outputs, dense_outputs)",
}


class Objective(Protocol):
    """What training minimises over one micro-batch."""

    def __call__(self, model: nn.Module, inputs: Any, targets: Any) -> Tensor:  # noqa: ANN401 (the user's own data)
        """Return a scalar; the model is called inside, so that other networks and inner layers can be looked at."""
        ...


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    Attributes:
        name: what it is called in reports.
        loss: of the model's outputs and a batch's targets, a scalar to minimise.
        metric: of a model in eval mode and batches ``(inputs, targets)`` on its device, the figure by which networks
            are compared.
        higher_is_better: whether a higher figure is the better one.
        own_objective: what training minimises instead of the loss, where the model has to be called in another way
            (detectors that return their losses).
        distillation: of the outputs and the dense network's outputs for the same inputs, a scalar: how far they are
            apart. ``None`` where none is known; classification compares softened class scores.
    """

    name: str
    loss: Callable[[Any, Any], Tensor]
    metric: Callable[[nn.Module, Iterable[Any]], float]
    higher_is_better: bool = True
    own_objective: Objective | None = None
    distillation: Callable[[Any, Any], Tensor] | None = None

    @property
    def objective(self) -> Objective:
        """What training minimises: the task's own objective, or the loss of ``model(inputs)``."""
        return self.own_objective or self._loss_of_outputs

    def better(self, figure: float, other: float) -> bool:
        """Say whether one figure is better than another; what is not a number is never better."""
        return figure > other if self.higher_is_better else figure < other

    def shown(self, figure: float) -> str:
        """Write a figure for people: accuracies in per cent."""
        return f"{figure:.1%}" if self.name == CLASSIFICATION else f"{figure:.4g}"

    def _loss_of_outputs(self, model: nn.Module, inputs: Any, targets: Any) -> Tensor:  # noqa: ANN401
        return self.loss(model(inputs), targets)


def classification(label_smoothing: float = 0.0) -> Task:
    """Return the default task: cross entropy, in nats, and top-1 accuracy, in 0..1.

    Args:
        label_smoothing: share of each target that is spread evenly over all classes (Szegedy 2016, section 7).

    Raises:
        TaskError: the share is not in 0..1.
    """
    if not 0 <= label_smoothing < 1:
        raise TaskError(
            f"label smoothing must be at least 0 and below 1, not {label_smoothing:g}; write for example 0.1"
        )

    def loss(outputs: object, targets: Tensor) -> Tensor:
        found = logits(outputs)
        check_labels(found, targets)
        return functional.cross_entropy(found, targets, label_smoothing=label_smoothing)

    return Task(CLASSIFICATION, loss, top1)


def top1(model: nn.Module, batches: Iterable[tuple[Any, Tensor]]) -> float:
    """Return the share of inputs whose class got the highest output, in 0..1.

    Args:
        model: maps inputs to outputs (N, classes), in eval mode.
        batches: inputs and classes (N,).

    Raises:
        DataError: there is no batch, or outputs and classes do not fit.
    """
    correct, count = torch.zeros((), dtype=torch.int64), 0
    with torch.no_grad():
        for inputs, targets in batches:
            outputs = logits(model(inputs))
            check_labels(outputs, targets)
            correct = correct.to(outputs.device) + (outputs.argmax(1) == targets).sum()
            count += len(targets)
    if not count:
        raise DataError("there are no pictures to evaluate on; give the split at least one")
    return correct.item() / count


def load_task(path: str | Path) -> Task:
    """Read a task from a user's Python file.

    The file defines ``loss(outputs, targets)``, which returns a scalar tensor; ``metric(model, batches)``, which
    returns a number; and ``higher_is_better``, true or false. It may define ``objective(model, inputs, targets)``,
    which training then minimises instead of the loss of ``model(inputs)``, and
    ``distillation(outputs, dense_outputs)``.

    Args:
        path: the file.

    Returns:
        The task; its functions raise ``TaskError`` where the user's fail or return something else.

    Raises:
        UserCodeError: the file cannot be read or imported.
        TaskError: it lacks one of the names, or what it has there cannot be used.
    """
    file = Path(path).expanduser()
    if file.suffix != ".py":
        raise TaskError(f"--task {path} is not a Python file; write --task path/to/file.py")
    found = vars(load_module(file))
    functions = {name: _function(found, name, file) for name in NAMES}
    better = found.get("higher_is_better")
    if type(better) is not bool:
        what = "does not say" if better is None else f"says {better!r} for"
        raise TaskError(f"{file} {what} higher_is_better; write higher_is_better = True (or False, as for an error)")
    checks = {name: _Checked(name, function, file) for name, function in functions.items() if function is not None}
    return Task(
        file.stem,
        checks["loss"].scalar,
        checks["metric"].number,
        better,
        checks["objective"].scalar if "objective" in checks else None,
        checks["distillation"].scalar if "distillation" in checks else None,
    )


def _function(found: dict[str, Any], name: str, file: Path) -> Callable[..., Any] | None:
    """Return a function of the user's file that can be called as it will be."""
    function = found.get(name)
    if function is None:
        if name not in {"loss", "metric"}:
            return None
        own = [key for key, value in found.items() if callable(value) and not key.startswith("_")]
        hint = f"; {near_misses(name, own)}" if own else ""
        raise TaskError(f"{file} defines no function {name}; write def {NAMES[name]}{hint}")
    if not callable(function):
        raise TaskError(f"{name} of {file} is a {type(function).__name__}, not a function; write def {NAMES[name]}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # callables written in C do not tell
        return function
    try:
        signature.bind(*[None] * NAMES[name].count(","), None)
    except TypeError as error:
        raise TaskError(f"{name}{signature} of {file} cannot be called as {NAMES[name]} ({error})") from None
    return function


@dataclass(frozen=True)
class _Checked:
    """A user's function whose failures and results are looked at."""

    name: str
    function: Callable[..., Any]
    file: Path

    def scalar(self, *arguments: Any) -> Tensor:  # noqa: ANN401
        value = self._called(*arguments)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            shape = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise TaskError(
                f"{self.name} of {self.file} returned {shape}; return a floating-point tensor of one number"
            )
        return value.reshape(())

    def number(self, *arguments: Any) -> float:  # noqa: ANN401
        value = self._called(*arguments)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, Real) or isinstance(value, bool) or math.isnan(value):
            raise TaskError(f"{self.name} of {self.file} returned {value!r:.80}; return one number")
        return float(value)

    def _called(self, *arguments: Any) -> Any:  # noqa: ANN401
        try:
            return self.function(*arguments)
        except CutbackError:
            raise
        except Exception as error:
            raise TaskError(f"{self.name} of {self.file} failed{reason_of(error, self.file)}; correct it") from error
