"""Stochastic pruning of activation gradients (Ye et al., ECCV 2020): see ``GradientPruning`` and the README."""

from cutback.methods.gradient_pruning.method import GradientPruning

__all__ = ["GradientPruning"]
