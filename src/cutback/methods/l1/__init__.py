"""Filter pruning by L1 norm (Li et al., 2017), whole: see ``README.md`` in this folder."""

from cutback.methods.l1.method import L1
from cutback.methods.l1.presets import PRESETS

__all__ = ["L1", "PRESETS"]
