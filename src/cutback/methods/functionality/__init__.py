"""Functionality-oriented filter pruning (Qin et al., 2018), whole: see ``README.md`` in this folder."""

from cutback.methods.functionality.method import Functionality

__all__ = ["Functionality"]
