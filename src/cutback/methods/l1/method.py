"""Filter pruning by L1 norm: rank each layer's filters, remove the smallest, train again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import Optimizer

from cutback.errors import UserMistake
from cutback.graph.graph import Graph
from cutback.methods.about import About, methods
from cutback.methods.l1.asked import Asked, Evaluate
from cutback.methods.l1.ratios import read_patterns, read_ratios
from cutback.methods.l1.rounds import Round, Schedule, renamed, rounds_to
from cutback.methods.method import Method
from cutback.planning.at_widths import plan_at_widths
from cutback.planning.budget import Budget
from cutback.planning.plan import Plan
from cutback.planning.shares import Share
from cutback.scores.catalogue import Score, make_score
from cutback.scores.catalogue import about as about_score
from cutback.surgery.initialise import check_resettable, start_anew

Allocate = Literal["uniform", "sensitivity"]
Criterion = Literal["l1", "l2", "random", "largest", "mean-mean", "mean-std", "mean-l1", "mean-l2", "var-l2"]
Select = Literal["independent", "greedy"]
Coupled = Literal["leader", "sum", "mean", "max"]


@methods.register("l1")
class L1(Method):
    """Remove the filters of smallest L1 norm, layer by layer, and train again (Li 2017).

    H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017. What goes is given in one of four ways: a
    ``preset`` of the paper, ``ratios`` by hand, a ``budget`` of which each layer loses the same share, or
    ``allocate="sensitivity"``: the ratio of each stage from a scan, to a budget if there is one.

    The published setting is one cut when the method is attached, after which it has finished and the loop trains again
    (40 epochs on CIFAR-10, 20 on ImageNet, at a constant learning rate of 0.001).

    Args:
        graph: the traced model.
        budget: see ``Method``.
        optimizers: see ``Method``.
        copies: see ``Method``.
        loader: batches ``(inputs, labels)``, for the criteria that look at activations.
        evaluate: accuracy of a model on the validation split, in 0..1, for ``allocate="sensitivity"``.
        reset: draws a model's starting weights in place, for ``scratch``; by default He's.
        preset: one of the paper's configurations: ``vgg16-a``, ``resnet56-a``, ``resnet56-b``, ``resnet110-a``,
            ``resnet110-b``, ``resnet34-a``, ``resnet34-b``, ``resnet34-c``.
        ratios: the share that each layer loses, by pattern of layers: ``"layer1.*=60%, layer2.*=30%"`` or a mapping.
        skip: patterns of layers or modules that stay whole, whatever the rest says: ``"layer1.0.*, stem"``.
        allocate: ``uniform``: each layer loses the same share. ``sensitivity``: each layer of a stage loses what its
            most sensitive one can at equal loss of accuracy.
        tolerance: accuracy that a layer alone may cost, in the scan.
        skip_at: layers that cost more than that when this share of them goes stay whole.
        criterion: what ranks filters: ``l1``; the paper's controls ``l2``, ``random``, ``largest``; statistics of what
            a layer returns, ``mean-mean``, ``mean-std``, ``mean-l1``, ``mean-l2`` and ``var-l2``.
        select: ``independent``: each layer by its whole filters. ``greedy``: without the inputs that are gone.
        coupled: layers that are added up: ``leader``: the filters of the projection shortcut decide, and streams
            without one stay whole. ``sum``, ``mean`` and ``max`` of all layers are not in the paper.
        schedule: ``one-shot``; ``layers``: layer by layer from the input on, with training in between; ``filters``:
            filter by filter.
        steps: over how many steps of the optimiser the cuts of ``layers`` and ``filters`` are spread.
        rounds: so many cuts in all; by default one a layer or filter.
        scratch: draw new weights after the cut: the control that the same network trained from scratch is.
        seed: of the ``random`` criterion, and of the new weights.

    Raises:
        UserMistake: settings that contradict each other, or something needed is missing.
        InvalidBudget: a budget cannot be read.
    """

    about = About(
        title="Pruning Filters for Efficient ConvNets",
        authors="Li et al.",
        year=2017,
        where="ICLR 2017, arXiv:1608.08710",
        budget="hits",
        needs=("loader", "evaluate"),
    )

    def __init__(  # noqa: PLR0913 (one argument a setting)
        self,
        graph: Graph,
        *,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        loader: Iterable[object] | None = None,
        evaluate: Evaluate | None = None,
        reset: Callable[[nn.Module], None] | None = None,
        preset: str | None = None,
        ratios: str | Mapping[str, Share] | None = None,
        skip: str | Sequence[str] = "",
        allocate: Allocate = "uniform",
        tolerance: float = 0.02,
        skip_at: float = 0.1,
        criterion: Criterion = "l1",
        select: Select = "independent",
        coupled: Coupled = "leader",
        schedule: Schedule = "one-shot",
        steps: int | None = None,
        rounds: int | None = None,
        scratch: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        for name, given, known in (
            ("allocate", allocate, Allocate),
            ("criterion", criterion, Criterion),
            ("select", select, Select),
            ("coupled", coupled, Coupled),
            ("schedule", schedule, Schedule),
        ):
            if given not in get_args(known):
                raise UserMistake(f"{name}={given!r} is none of {', '.join(get_args(known))}; write one of them")
        self.asked = Asked(
            budgets=self.budgets,
            preset=preset,
            ratios=None if ratios is None else read_ratios(ratios),
            skip=read_patterns(skip),
            scanned=allocate == "sensitivity",
            tolerance=tolerance,
            skip_at=skip_at,
            greedy=select == "greedy",
            follow_leader=coupled == "leader",
        )
        if self.asked.scanned and evaluate is None:
            raise UserMistake("allocate='sensitivity' needs evaluate, a function of a model: its validation accuracy")
        if about_score(criterion).data and loader is None:
            raise UserMistake(f"criterion {criterion!r} needs loader, an iterable of batches (inputs, labels)")
        if schedule != "one-shot" and (steps is None or steps < 1):
            raise UserMistake(f"schedule={schedule!r} spreads its cuts over steps of the optimiser; write steps=1000")
        if schedule != "one-shot" and scratch:
            raise UserMistake(f"scratch draws new weights after one cut; it does not go with schedule={schedule!r}")
        if rounds is not None and rounds < 1:
            raise UserMistake(f"rounds={rounds} is the number of cuts; write at least 1")
        self.criterion, self.coupled, self.seed = criterion, coupled, seed
        self.schedule, self.steps, self.rounds, self.scratch = schedule, steps or 1, rounds, scratch
        self._loader, self._evaluate, self._reset = loader, evaluate, reset
        self._waiting: list[Round] | None = None  # the cuts to come; None before the first
        self._cuts = self._done = 0  # how many cuts there are in all, how many steps are done

    def target(self) -> Plan:
        """Return the plan for what is asked for, ranked by the weights as they are; changes nothing.

        Raises:
            CutbackError: see ``Asked.plan``.
        """
        return self.asked.plan(self.graph, self._score(), self._evaluate)

    def attach(self) -> None:
        """Make the first cut: the only one, or the first of several.

        Raises:
            CutbackError: see ``target`` and ``cut``; the model is as it was.
        """
        if self._waiting is not None:
            return
        if self.scratch and self._reset is None:
            check_resettable(self.graph.model)
        target = self.target()
        rounds = rounds_to(self.graph, target, self.schedule, self.rounds)
        if self.schedule == "one-shot":
            self.cut(target)
            self._waiting = []
        else:
            self._waiting = self._after_next(rounds)
        self._cuts = len(rounds)
        if self.scratch:
            start_anew(
                self.graph.model, seed=self.seed, reset=self._reset, optimizers=self.optimizers, copies=self.copies
            )

    def after_step(self) -> bool:
        """Make the cuts that are due: the ``n``-th of ``N`` after ``n / N`` of the steps."""
        self._done += 1
        was_cut = False
        while self._waiting and self._done * self._cuts >= (self._cuts - len(self._waiting)) * self.steps:
            self._waiting = self._after_next(self._waiting)
            was_cut = True
        return was_cut

    @property
    def finished(self) -> bool:
        """Whether the last cut was made."""
        return self._waiting is not None and not self._waiting

    def state_dict(self) -> dict[str, Any]:
        """Return the plan so far, the cuts to come and how many steps are done."""
        waiting = None if self._waiting is None else [dict(step) for step in self._waiting]
        return {**super().state_dict(), "waiting": waiting, "cuts": self._cuts, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        waiting = state["waiting"]
        self._waiting = None if waiting is None else [dict(step) for step in waiting]
        self._cuts, self._done = state["cuts"], state["done"]

    def _after_next(self, rounds: Sequence[Round]) -> list[Round]:
        """Make the first of several cuts and return the others."""
        plan = plan_at_widths(self.graph, rounds[0], self._score(), greedy=self.asked.greedy)
        self.cut(plan)
        return renamed(rounds[1:], plan, self.graph)

    def _score(self) -> Score:
        """Return what ranks filters."""
        name = self.criterion if self.criterion == "random" else f"{self.criterion}:{self.coupled}"
        return make_score(name, loader=self._loader, seed=self.seed)
