"""Every error cutback raises on purpose: one base class, one subclass for each kind of trouble.

A message says what went wrong, where (module path and operator), why, and what to do about it.
"""


class CutbackError(Exception):
    """Base class of all errors that cutback raises on purpose."""


class UserMistake(CutbackError):
    """The request cannot be carried out as it was written; the message says how to write it."""


class UnknownName(UserMistake):
    """A name (score, model, layer pattern, method) that nothing answers to; the message lists near misses."""


class CaptureError(CutbackError):
    """The model could not be run on the example inputs and recorded as a graph."""


class DataDependentControlFlow(CaptureError):
    """The model's Python takes another path for other inputs, so no single graph describes it."""


class NothingToPrune(CutbackError):
    """No unit of the model may be removed; the message says what keeps each layer."""


class IllegalCut(CutbackError):
    """Units were chosen that cannot go together without sending channels where they do not belong."""


class InvalidScore(CutbackError):
    """A score is not a finite tensor of one number a unit."""


class InvalidBudget(UserMistake):
    """A budget that cannot be read, or that asks for nothing or for everything."""


class BudgetUnreachable(CutbackError):
    """No permitted cut meets the budget.

    Attributes:
        lowest: the lowest reachable figure, by quantity (``macs`` and ``params`` in units of one).
    """

    def __init__(self, message: str, lowest: dict[str, int]) -> None:
        super().__init__(message)
        self.lowest = lowest


class StaleGraph(CutbackError):
    """The model has changed since it was traced."""


class StaleWrapper(CutbackError):
    """A wrapper around a model was made before the model was cut, and would not do its work any more."""


class DifferentCuts(CutbackError):
    """The processes that train a model together are about to cut it differently."""


class ArchitectureMismatch(CutbackError):
    """A plan or checkpoint belongs to another architecture than the model at hand."""


class Ungatable(CutbackError):
    """A gate cannot be put where it was asked for, or its rows do not belong to one sample each."""


class NotEquivalent(CutbackError):
    """The pruned model does not compute what the original with silenced channels computes.

    Attributes:
        module: path of the first module whose output differs, or ``None`` where no module can be named.
    """

    def __init__(self, message: str, module: str | None = None) -> None:
        super().__init__(message)
        self.module = module


class UnreachedParameters(CutbackError):
    """A cut would touch modules beside parameters that no captured forward pass has used."""


class OptimizerStateError(CutbackError):
    """The state of an optimiser cannot be cut along with its parameters."""


class SaveError(CutbackError):
    """A checkpoint could not be written; nothing was left half-written."""


class CorruptFile(CutbackError):
    """A file is truncated, or its bytes do not match their recorded hash."""


class UnsupportedVersion(CutbackError):
    """A file was written in a format newer than this version of cutback reads."""


class DataError(UserMistake):
    """A data source that is missing, empty, damaged, or does not fit the model."""


class TaskError(UserMistake):
    """A user's task (loss, metric) that lacks a part, or whose functions fail or return what cannot be used."""


class MethodUnfinished(CutbackError):
    """A method has not reached its budget in the training it was given."""


class ContractBroken(CutbackError):
    """A plug-in does not keep a promise of its interface; the message says which."""
