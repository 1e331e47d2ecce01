"""Sub-architectures learned apart from weights (Colombo and Gao, 2021): see ``Subarchitecture`` and the README."""

from cutback.methods.subarchitecture.method import Subarchitecture
from cutback.methods.subarchitecture.relaxation import Relaxation

__all__ = ["Relaxation", "Subarchitecture"]
