"""``finetune:EPOCHS``: training on as before the cut."""

from dataclasses import dataclass

from cutback.train.recovery.step import Situation, Training, recovery_steps
from cutback.train.task import Objective


@recovery_steps.register("finetune")
@dataclass(frozen=True, kw_only=True)
class Finetune(Training):
    """Train the cut network on the task itself."""

    def objective(self, situation: Situation) -> Objective:
        """Return the task's own objective."""
        return situation.task.objective
