"""Approximated Oracle Filter Pruning (Ding et al., ICML 2019): see ``AOFP`` and the README beside it."""

from cutback.methods.aofp.method import AOFP

__all__ = ["AOFP"]
