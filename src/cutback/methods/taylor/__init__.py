"""Taylor importance: removes a few units every few minibatches, those that the loss would miss least."""

from cutback.methods.taylor.method import Taylor

__all__ = ["Taylor"]
