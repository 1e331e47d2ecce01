"""The interface of all methods: an object that a training loop calls, its own or the user's."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cutback.errors import ArchitectureMismatch, UserMistake
from cutback.graph.architecture import hash_of
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.graph.trace import retraced
from cutback.methods.about import About
from cutback.planning.budget import Budget, parse_budgets
from cutback.planning.plan import Plan
from cutback.surgery.cut import cut_in_place
from cutback.surgery.wrappers import check_same_on_all_ranks


class Method(ABC):
    """A published way to prune while a network trains.

    The loop calls it at four places of each step::

        with method:
            model = cutback.rewrap(model)  # only where it is wrapped: some methods cut on entry
            for inputs, labels in loader:
                (loss_function(model(inputs), labels) + method.penalty()).backward()
                method.after_backward()  # each micro-batch
                method.before_step()  # gradients are whole and unscaled, not yet clipped
                optimizer.step()
                if method.after_step():  # the model was cut
                    model = cutback.rewrap(model)  # only where it is wrapped
                if method.finished:
                    break

    Outside the ``with`` block nothing of it is left in the model or its optimisers but what it has made of them. A
    method may be finished as soon as it is attached. What it needs to know of the length of the run it is told when it
    is made (``steps``).

    Args:
        graph: the traced model.
        budget: what the result may cost, as for ``cutback.plan``.
        optimizers: those that hold the model's parameters; their state is cut along.
        copies: averages of the model, which are cut along.

    Attributes:
        about: paper, and what to expect.
        graph: the traced model, as it is now.
        budgets: the budgets, read.
    """

    about: ClassVar[About]

    def __init__(
        self,
        graph: Graph,
        *,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
    ) -> None:
        if not isinstance(graph, Graph):
            raise UserMistake(
                f"{type(self).__name__} needs a graph, not {type(graph).__name__}; pass what "
                "cutback.trace(model, example_inputs) returns"
            )
        self.graph = graph
        self.budgets = parse_budgets(budget if isinstance(budget, str | Budget | None) else list(budget))
        self.optimizers = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
        self.copies = [copies] if isinstance(copies, nn.Module) else list(copies)
        self._wrappers = graph.wrappers  # a graph traced again has none, but the processes are the same
        self._plan: Plan | None = None
        self._attached = False

    def __enter__(self) -> Self:
        if self._attached:
            raise UserMistake(f"this {type(self).__name__} is attached already; leave its with block first")
        self._attached = True
        try:
            self.attach()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._attached = False
        self.detach()

    def attach(self) -> None:  # noqa: B027 (a hook that some leave empty)
        """Put into the model what the method needs there; called on entry to the ``with`` block."""

    def detach(self) -> None:  # noqa: B027 (a hook that some leave empty)
        """Take out all that ``attach`` put in, however far it came; called on exit, also after an exception."""

    def penalty(self) -> Tensor:
        """Return what is added to the loss of each micro-batch, a scalar; zero unless the method has a penalty."""
        parameter = next(iter(parameters_by_name(self.graph.model).values()), None)
        return torch.zeros((), device=None if parameter is None else parameter.device)

    def after_backward(self) -> None:  # noqa: B027 (a hook that some leave empty)
        """Take note of a micro-batch; called after each ``backward``."""

    def before_step(self, scaler: torch.amp.GradScaler | None = None) -> None:  # noqa: B027 (as above)
        """Read and edit the gradients; called once a step, when they are whole and unscaled, before they are clipped.

        Args:
            scaler: the scaler of mixed precision, if there is one; gradients of parameters are unscaled already, those
                of gates are not.
        """

    def after_step(self) -> bool:
        """Go on with the method's own schedule; called after each step of the optimiser.

        Returns:
            Whether the model was cut: wrappers around it (``DistributedDataParallel``) are to be made anew with
            ``cutback.rewrap``.
        """
        return False

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the method has done all it does; training may go on without it."""

    def plan(self) -> Plan | None:
        """Return the plan that leads from the dense network to the model as it is now, ``None`` while it is whole."""
        return self._plan

    def forecast(self) -> dict[str, object]:
        """Return what the method costs beside the loop's own steps, before it begins: numbers by name, for a log.

        Empty where that is next to nothing.
        """
        return {}

    def records(self) -> dict[str, object]:
        """Return what a log of the run should keep of this moment, for JSON: numbers, and histograms, by name.

        A histogram is ``{"edges": [...], "counts": [...]}`` with one edge more than counts.
        """
        return {}

    def findings(self) -> dict[str, Any]:
        """Return what the method has found out, for the report of a run: a nest of dicts, lists, numbers and text."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on: dicts with text keys, lists, tensors, numbers, text and ``None``.

        The model's own weights, the optimisers and the global random state are not in it. Subclasses add to it.
        """
        return {"plan": None if self._plan is None else self._plan.to_json()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before: the model must be as it was then. Call it before the ``with`` block.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        written = state["plan"]
        plan = None if written is None else Plan.from_json(written)
        if plan is not None and hash_of(self.graph.model) != plan.result:
            raise ArchitectureMismatch(
                "the method's state belongs to a model that was cut otherwise than the one at hand; load the model of "
                "the same checkpoint first, trace it, and make the method from that graph"
            )
        self._plan = plan

    def cut(self, plan: Plan, *, prove: bool = True) -> None:
        """Cut the model in place, with optimisers and copies, and trace it again.

        Args:
            plan: a plan from the present ``graph``, the same on all ranks.
            prove: run the proof first.

        Raises:
            DifferentCuts: the processes that train together have made different plans.
            CutbackError: see ``cutback.apply_``; the model is as it was.
        """
        check_same_on_all_ranks(self._wrappers, plan)
        cut_in_place(self.graph, plan, optimizers=self.optimizers, copies=self.copies, gradients="clear", prove=prove)
        self._plan = plan if self._plan is None else self._plan.then(plan)
        self.graph = retraced(self.graph)
