"""Functionality-oriented pruning: see what filters look for, remove repeats, and watch what retraining makes of it."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from cutback.errors import InvalidBudget, UserMistake
from cutback.gates import ungatable_groups
from cutback.graph.clone import independent_copy
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.io.folder import write_folder
from cutback.methods.about import About, methods
from cutback.methods.activations import looked_at
from cutback.methods.checking import check_known, check_loader, check_whole, patterns_in
from cutback.methods.eligible import eligible, kept_whole
from cutback.methods.functionality.ascent import Ascent
from cutback.methods.functionality.clustering import Clustering
from cutback.methods.functionality.drift import Drift
from cutback.methods.functionality.looking import passes_of
from cutback.methods.functionality.quota import Layer, by_value, inside_clusters
from cutback.methods.functionality.sheet import Row, files, index
from cutback.methods.functionality.sight import picture_shape
from cutback.methods.functionality.study import Study, studied
from cutback.methods.functionality.transfer import transferred_
from cutback.methods.in_order import ByThreshold, Leaving, ranks, widths_at
from cutback.methods.method import Method
from cutback.planning.at_widths import plan_at_widths
from cutback.planning.budget import Budget
from cutback.planning.limits import limits_of
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan
from cutback.scores.catalogue import make_score
from cutback.scores.data import batches_of
from cutback.surgery.columns import followed
from cutback.surgery.following import follow_
from cutback.trials.copies import cut_copy

Order = Literal["functionality", "l1", "random", "random-inside"]
Count = Literal["silhouette", "share"]
Since = Literal["dense", "cut"]
Evaluate = Callable[[nn.Module], float]


@methods.register("functionality")
class Functionality(Method):
    """Filters that look for the same go, so that every function keeps one (Qin 2018).

    Z. Qin et al., "Functionality-Oriented Convolutional Filter Pruning", BMVC 2019. For each filter a picture is made
    that it answers to most. Filters with like pictures are of one function; of these the one that the answers depend
    on least goes first, and none that is alone. Retraining is optional: with ``steps`` the method stays attached so
    long, looks at the filters again, and tells how far their functions have drifted. Retrain at a tenth of the last
    learning rate.

    Args:
        graph: the traced model, of a classification of pictures: it returns logits (N, classes).
        budget: see ``Method``; or give ``alpha``.
        optimizers: see ``Method``.
        copies: see ``Method``; where weights are transferred, they begin anew with the result.
        loader: batches ``(inputs, labels)`` of the training split; labels are not looked at.
        evaluate: a figure of a model on the validation split; if there is one, it is told before and after the cut
            and after retraining.
        alpha: which share of each layer's repeats goes, for widths without a budget; 1 for all of them.
        steps: of the optimiser that retraining takes; none by default.
        order: ``functionality``; or, as many of each layer, ``l1``, ``random`` or ``random-inside`` clusters.
        transfer: whether the weights that read a removed filter are added to those that read one of its function.
        since: drift is told since the ``dense`` network, or since it was ``cut``.
        images: pictures for the contribution index, and so many for how activations go together.
        ascent_steps: of activation maximisation; by default 60 in the first three layers and 150 behind.
        ascent_rate: length of these steps.
        decay: share that pictures lose each step.
        variation: weight of their total variation, behind the first three layers.
        jitter: pixels by which they are moved meanwhile, behind the first three layers.
        low: the lowest value of pixels, as the model is given them.
        high: the highest.
        count: number of clusters: by the ``silhouette``, or a fixed ``share`` of the filters.
        share: this share.
        alike: mean correlation of pictures below which a cluster is none.
        together: pictures in one pass.
        streams: whether channels that residual blocks add to may go too.
        min_channels: so many filters of each layer stay.
        ignore: patterns of modules whose outputs stay whole, separated by commas.
        folder: where pictures are written: one a filter, and a contact sheet; empty for nowhere.
        seed: of all draws.

    Raises:
        UserMistake: a setting is out of range, or the model is given no pictures.
        InvalidBudget: a budget cannot be read, or there is neither budget nor alpha.
    """

    about = About(
        title="Functionality-Oriented Convolutional Filter Pruning",
        authors="Qin et al.",
        year=2018,
        where="BMVC 2019, arXiv 1810.07322",
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
        loader: Iterable[object],
        evaluate: Evaluate | None = None,
        alpha: float | None = None,
        steps: int = 0,
        order: Order = "functionality",
        transfer: bool = False,
        since: Since = "dense",
        images: int = 1024,
        ascent_steps: int | None = None,
        ascent_rate: float = 0.2,
        decay: float = 1e-3,
        variation: float = 1e-4,
        jitter: int = 1,
        low: float = -2.0,
        high: float = 2.0,
        count: Count = "silhouette",
        share: float = 0.5,
        alike: float = 0.3,
        together: int = 64,
        streams: bool = False,
        min_channels: int = 1,
        ignore: str = "",
        folder: str = "",
        seed: int = 0,
    ) -> None:
        super().__init__(graph, budget=budget, optimizers=optimizers, copies=copies)
        if bool(self.budgets) == (alpha is not None):
            raise InvalidBudget(
                "give functionality either a budget such as macs=50% or alpha, which share of repeated filters goes"
            )
        check_loader("functionality", loader)
        whole = {"steps": (steps, 0), "images": (images, 1), "jitter": (jitter, 0), "together": (together, 1)}
        check_whole("functionality", whole if ascent_steps is None else {**whole, "ascent_steps": (ascent_steps, 1)})
        check_known("functionality", {"order": (order, Order), "count": (count, Count), "since": (since, Since)})
        sound = ascent_rate > 0 and 0 <= decay < 1 and variation >= 0 and low < high and 0 < share <= 1
        if not (sound and -1 <= alike <= 1 and (alpha is None or alpha > 0)):
            raise UserMistake(
                f"ascent_rate={ascent_rate!r} and alpha={alpha!r} must be above 0, variation={variation!r} not below, "
                f"decay={decay!r} from 0 to below 1, low={low!r} below high={high!r}, share={share!r} above 0 up to 1, "
                f"alike={alike!r} from -1 to 1"
            )
        picture_shape(graph)
        self.alpha, self.steps, self.order, self.transfer, self.since = alpha, steps, order, transfer, since
        self.images, self.streams, self.min_channels, self.seed = images, streams, min_channels, seed
        self.ascent = Ascent(
            steps=ascent_steps,
            rate=ascent_rate,
            decay=decay,
            variation=variation,
            jitter=jitter,
            low=low,
            high=high,
            together=together,
            seed=seed,
        )
        self.clustering = Clustering(count=count, share=share, alike=alike, seed=seed)
        self.ignore, self.folder = patterns_in(ignore), folder
        self._loader, self._evaluate = loader, evaluate
        self._done = 0
        self._cut, self._finished = False, False
        self._drift = Drift({}, {}, {})
        self._found: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether the cut was made, and the filters were looked at again after the last step."""
        return self._finished

    def forecast(self) -> dict[str, object]:
        """Return how many pictures are passed forwards and backwards to see what filters look for."""
        once = passes_of(self.graph, self._layers(), self.ascent)
        return {"passes": once * (1 + bool(self.steps))}

    def attach(self) -> None:
        """Look at the filters, and cut; without retraining that is all.

        Raises:
            CutbackError: no cut meets the budget, or a layer cannot be looked at; the model is as it was.
        """
        if self._cut:
            return
        plan, study = self._chosen(self._layers())
        self._found["layers"] = study.told(plan)
        self._write(study.rows(plan))
        self._tell("dense")
        dense = replace(self.graph, model=independent_copy(self.graph.model), wrappers=()) if self.transfer else None
        before = self.graph
        self.cut(plan)
        self._cut = True
        if dense is not None:
            labels = {name: layer.labels.tolist() for name, layer in study.layers.items()}
            done, left = transferred_(dense, self.graph, plan, labels, study.together)
            self._found |= {"transferred": done, "not_transferred": left}
            follow_(self.copies, self.graph.model)
        self._tell("cut")
        if not self.steps:
            self._finished = True
            return
        self._drift = Drift.since_cut(study.seen, followed(before, self.graph, plan))
        if self.since == "cut":
            with looked_at(self.graph):
                self._drift = self._drift.renewed(self.graph, self.ascent)

    def after_step(self) -> bool:
        """Count the step; after the last one look at the filters again."""
        if not self._cut or self._finished:
            return False
        self._done += 1
        if self._done >= self.steps:
            with looked_at(self.graph):
                drifted, now = self._drift.measured(self.graph, self.ascent)
            self._found["drift"] = drifted
            self._tell("retrained")
            rows = [
                Row(name, look.pictures, self._drift.units[name], [0] * len(look.pictures), [True] * len(look.pictures))
                for name, look in now.items()
            ]
            self._write(rows, "_after")
            self._drift = Drift({}, {}, {})
            self._finished = True
        return False

    def findings(self) -> dict[str, Any]:
        """Return what has been found out: clusters, contributions and coverage of each layer, drift, figures."""
        return copy.deepcopy(self._found)

    def state_dict(self) -> dict[str, Any]:
        """Return the plan, the steps that are done, what was found out, and the pictures to compare with."""
        return {
            **super().state_dict(),
            "done": self._done,
            "cut": self._cut,
            "finished": self._finished,
            "found": copy.deepcopy(self._found),
            "drift": self._drift.to_tree(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``."""
        super().load_state_dict(state)
        self._done, self._cut, self._finished = int(state["done"]), bool(state["cut"]), bool(state["finished"])
        self._found, self._drift = copy.deepcopy(dict(state["found"])), Drift.from_tree(state["drift"])

    def _layers(self) -> list[str]:
        """Return the names of the groups that are looked at.

        Raises:
            NothingToPrune: there are none; says why.
        """
        stay: dict[str, str] = {}
        for site in ("norm", "feature", "consumer"):
            stay |= ungatable_groups(self.graph, site)
        return eligible(self.graph, "functionality", ignore=self.ignore, streams=self.streams, stay=stay)

    def _chosen(self, names: Sequence[str]) -> tuple[Plan, Study]:
        """Return the plan, by which repeats go, the same share of them in each layer, and what it rests on."""
        found: list[Study] = []
        leaving: dict[str, Leaving] = {}

        def score(graph: Graph) -> Mapping[str, Tensor]:
            if not found:
                found.append(studied(graph, names, list(self._pictures()), self.ascent, self.clustering))
                leaving.update(self._leaving(found[0].layers))
            return ranks(graph, leaving)

        if self.alpha is None:
            plan = make_plan(
                self.graph,
                score=score,
                budget=self.budgets,
                keep=kept_whole(self.graph, names),
                min_channels=self.min_channels,
                allocate=ByThreshold(leaving),
            )
            return plan, found[0]
        score(self.graph)
        widths = widths_at(self.graph, leaving, self.alpha, limits_of(1, self.min_channels, None), "alpha")
        return plan_at_widths(self.graph, widths, score), found[0]

    def _leaving(self, layers: Mapping[str, Layer]) -> dict[str, Leaving]:
        """Return in which order the filters of each layer go."""
        if self.order == "functionality":
            return {name: inside_clusters(layer) for name, layer in layers.items()}
        if self.order == "l1":
            norms = make_score("l1")(self.graph)
            return {name: by_value(layer, norms[name].double().cpu().numpy()) for name, layer in layers.items()}
        generator = np.random.default_rng(self.seed)
        found: dict[str, Leaving] = {}
        for name, layer in layers.items():
            drawn = generator.random(len(layer.labels))
            inside = Layer(layer.labels, drawn, drawn)
            found[name] = inside_clusters(inside) if self.order == "random-inside" else by_value(layer, drawn)
        return found

    def _pictures(self) -> Iterator[Inputs]:
        """Yield batches of as many pictures as are looked at."""
        count = 0
        for inputs, _ in batches_of(self.graph, self._loader):
            yield inputs
            count += len(inputs.tensors()[0])
            if count >= self.images:
                return

    def _tell(self, when: str) -> None:
        """Note the figure on the validation split."""
        if self._evaluate is not None:
            self._found[f"figure_{when}"] = float(self._evaluate(cut_copy(self.graph.model, None)))

    def _write(self, rows: Sequence[Row], suffix: str = "") -> None:
        """Write the pictures, in the main process alone."""
        alone = not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
        if self.folder and alone and rows:
            told = json.dumps(index(rows), indent=1).encode()
            made = files(rows, self.ascent.low, self.ascent.high, suffix)
            write_folder(Path(self.folder), {**made, f"functions{suffix}.json": told})
