"""What the author of a method runs to see that it keeps the interface's promises: ``check_method``."""

from cutback.testing.case import MethodCase
from cutback.testing.methods import CHECKS, Recorded, check_method

__all__ = ["CHECKS", "MethodCase", "Recorded", "check_method"]
