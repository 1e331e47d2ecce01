"""What the author of a method runs to see that it keeps the interface's promises: ``check_method``."""

from cutback.testing.case import MethodCase
from cutback.testing.methods import CHECKS, check_method
from cutback.testing.recorded import Recorded

__all__ = ["CHECKS", "MethodCase", "Recorded", "check_method"]
