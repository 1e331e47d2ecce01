"""ResRep (X. Ding et al., ICCV 2021): see ``ResRep`` and the README beside it."""

from cutback.methods.resrep.method import ResRep

__all__ = ["ResRep"]
