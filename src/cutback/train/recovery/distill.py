"""``distill:EPOCHS``: training with the dense network as teacher."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.graph.clone import modules_by_path, set_training
from cutback.train.evaluation import logits
from cutback.train.recovery.kept import kept_outputs
from cutback.train.recovery.step import Situation, Training, recovery_steps
from cutback.train.recovery.unfolding import Layer, is_layer
from cutback.train.task import CLASSIFICATION, Objective, Task

Activations = dict[str, list[Tensor]]


@recovery_steps.register("distill")
@dataclass(frozen=True, kw_only=True)
class Distill(Training):
    """Train the cut network to answer as the dense one does (Hinton 2015, section 2).

    The objective is ``(1 - weight) * loss + weight * temperature**2 * KL(teacher || student)``, both class scores
    softened by the temperature; for other tasks the second part is the task's own ``distillation``. With ``features``
    it also holds the squared distance between the two networks' layers at the channels that stay (FitNets, Romero
    2015, with the channels' identity instead of a learnt regressor), relative to the square of the teacher's, as a mean
    over layers.

    Attributes:
        temperature: by which class scores are divided before the softmax.
        weight: share of the teacher's answers in the objective, in 0..1.
        features: weight of the layers' distances; 0 looks at none.
        layers: pattern of the paths of the convolutions and linear layers whose outputs are compared.
    """

    temperature: float = 4.0
    weight: float = 0.9
    features: float = 0.0
    layers: str = "*"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0 or not 0 <= self.weight <= 1 or not self.features >= 0:
            raise UserMistake(
                f"distillation needs a temperature above 0, a weight in 0..1 and features >= 0, not "
                f"{self.temperature:g}, {self.weight:g} and {self.features:g}; write for example "
                "distill:20:temperature=4:weight=0.9"
            )

    def objective(self, situation: Situation) -> Objective:
        """Return the distillation objective; the dense network is put in eval mode.

        Raises:
            UserMistake: the task does not say how outputs are compared, or no layer has a path of the pattern.
        """
        task, teacher, student = situation.task, situation.dense, situation.model
        distance = self._distance(task)
        paths = self._paths(student) if self.features else ()
        set_training(teacher, False)

        def objective(model: nn.Module, inputs: Any, targets: Any) -> Tensor:  # noqa: ANN401 (the user's own data)
            with torch.no_grad(), _activations(teacher, paths) as expected:
                answers = teacher(inputs)
            with _activations(student, paths) as found:
                outputs = model(inputs)
            loss = (1 - self.weight) * task.loss(outputs, targets) + self.weight * distance(outputs, answers)
            return loss + self.features * _apart(found, expected, situation) if paths else loss

        return objective

    def _distance(self, task: Task) -> Callable[[Any, Any], Tensor]:
        """Return how far outputs are from the dense network's."""
        if task.own_objective is not None:
            raise UserMistake(
                f"task {task.name!r} calls the model in its own way, which leaves no outputs to compare with the dense "
                "network's; recover by finetune"
            )
        distance = self._softened if task.name == CLASSIFICATION else task.distillation
        if distance is None:
            raise UserMistake(
                f"task {task.name!r} does not say how to compare outputs with the dense network's; write "
                "def distillation(outputs, dense_outputs) into its file, or recover by finetune"
            )
        return distance

    def _paths(self, model: nn.Module) -> tuple[str, ...]:
        """Return the layers whose outputs are compared."""
        modules = modules_by_path(model)
        found = tuple(path for path, module in modules.items() if is_layer(module) and fnmatchcase(path, self.layers))
        if not found:
            raise UserMistake(f"no convolution or linear layer has a path like {self.layers!r}; write layers=PATTERN")
        return found

    def _softened(self, outputs: object, answers: object) -> Tensor:
        student, teacher = (functional.log_softmax(logits(some) / self.temperature, 1) for some in (outputs, answers))
        return self.temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


@contextmanager
def _activations(model: nn.Module, paths: Sequence[str]) -> Iterator[Activations]:
    """Collect what layers put out, call by call, while the block runs."""
    found: Activations = {path: [] for path in paths}
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda _module, _arguments, output, path=path: found[path].append(output)
        )
        for path in paths
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _apart(found: Activations, expected: Activations, situation: Situation) -> Tensor:
    """Return the mean over layers of the squared distance, relative to the square of the dense network's outputs."""
    apart: list[Tensor] = []
    for path, outputs in found.items():
        layer = cast("Layer", situation.model.get_submodule(path))
        for own, dense in zip(outputs, expected[path], strict=True):
            wanted = kept_outputs(dense, layer, path, situation.plan)
            apart.append((own - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12))
    if not apart:
        raise UserMistake(f"none of the layers {', '.join(found)} is called; write layers=PATTERN for others")
    return torch.stack(apart).mean()
