"""Oracle pruning, exact: see ``OraclePruning`` and the README beside it."""

from cutback.methods.oracle.method import OraclePruning

__all__ = ["OraclePruning"]
