"""Group Fisher pruning (L. Liu et al., ICML 2021): see ``GroupFisher`` and the README beside it."""

from cutback.methods.group_fisher.method import GroupFisher

__all__ = ["GroupFisher"]
