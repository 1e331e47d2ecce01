"""Recovery of what a cut cost: steps by name, one a file, and chains of them.

Example:
    >>> from cutback.train.recovery import parse_recovery
    >>> [step.trains for step in parse_recovery("least-squares,bn,finetune:5")]
    [False, False, True]
"""

from cutback.train.recovery.batch_norm import BatchNormStatistics
from cutback.train.recovery.distill import Distill
from cutback.train.recovery.finetune import Finetune
from cutback.train.recovery.least_squares import LeastSquares
from cutback.train.recovery.step import Outcome, Repair, Situation, Step, Training, parse_recovery, recovery_steps

__all__ = [
    "BatchNormStatistics",
    "Distill",
    "Finetune",
    "LeastSquares",
    "Outcome",
    "Repair",
    "Situation",
    "Step",
    "Training",
    "parse_recovery",
    "recovery_steps",
]
