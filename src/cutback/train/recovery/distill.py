"""``distill:EPOCHS``: training with the dense network as teacher."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import UserMistake
from cutback.graph.clone import set_training
from cutback.train.evaluation import logits
from cutback.train.recovery.step import Situation, Training, recovery_steps
from cutback.train.task import CLASSIFICATION, Objective


@recovery_steps.register("distill")
@dataclass(frozen=True, kw_only=True)
class Distill(Training):
    """Train the cut network to answer as the dense one does (Hinton 2015, section 2).

    The objective is ``(1 - weight) * loss + weight * temperature**2 * KL(teacher || student)``, both softened by the
    temperature.

    Attributes:
        temperature: by which class scores are divided before the softmax.
        weight: share of the teacher in the objective, in 0..1.
    """

    temperature: float = 4.0
    weight: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0 or not 0 <= self.weight <= 1:
            raise UserMistake(
                f"distillation needs a temperature above 0 and a weight in 0..1, not {self.temperature:g} and "
                f"{self.weight:g}; write for example distill:20:temperature=4:weight=0.9"
            )

    def objective(self, situation: Situation) -> Objective:
        """Return the distillation objective; the dense network is put in eval mode."""
        task, teacher = situation.task, situation.dense
        distance = self._softened if task.name == CLASSIFICATION else task.distillation
        if distance is None:
            raise UserMistake(
                f"task {task.name!r} does not say how to compare outputs with the dense network's; write "
                "def distillation(outputs, dense_outputs) into its file, or recover by finetune"
            )
        set_training(teacher, False)

        def objective(model: nn.Module, inputs: Any, targets: Any) -> Tensor:  # noqa: ANN401
            with torch.no_grad():
                expected = teacher(inputs)
            outputs = model(inputs)
            return (1 - self.weight) * task.loss(outputs, targets) + self.weight * distance(outputs, expected)

        return objective

    def _softened(self, outputs: object, expected: object) -> Tensor:
        student, teacher = (functional.log_softmax(logits(some) / self.temperature, 1) for some in (outputs, expected))
        return self.temperature**2 * functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
