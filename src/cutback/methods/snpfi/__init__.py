"""SNPFI, pruning by filter-wise interactions (Tang et al., 2023), whole: see ``README.md`` in this folder."""

from cutback.methods.snpfi.method import SNPFI

__all__ = ["SNPFI"]
