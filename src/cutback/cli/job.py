"""Model and data that fit each other, and what is done with them in each part of a run."""

import copy
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import cutback
from cutback.cli.console import Reporter
from cutback.cli.models import Built, load_model
from cutback.cli.request import Request
from cutback.cli.staging import writable_cache
from cutback.errors import UserMistake
from cutback.methods import Method, make_method
from cutback.planning.allocation import Allocation
from cutback.planning.plan import Plan
from cutback.scores import Score
from cutback.surgery.cut import cut_fresh
from cutback.surgery.initialise import check_resettable
from cutback.surgery.verify import Proof
from cutback.train import Data, Progress, TrainSettings, fit, load_data
from cutback.train.batches import Sample, batches
from cutback.train.judging import check_fits, figure_of
from cutback.train.launch import Launch
from cutback.train.loop import Loop
from cutback.train.task import CLASSIFICATION, Task

READ_PICTURES = 256
"""Pictures in a batch where only their bytes are read."""
SCORED_PICTURES = 2048
"""Scores, methods and recovery steps that need data see so many pictures of the training split."""


@dataclass(frozen=True, eq=False)
class Job:
    """Model and data that fit each other, and the steps on them.

    Attributes:
        request: what was asked for.
        reporter: told what is going on.
        launch: where it is computed.
        task: what the model is for.
        data: the data.
        built: the model.
        example: two training pictures, (2, C, H, W).
        cache: folder in which a sensitivity scan is kept; ``None`` for nowhere.
    """

    request: Request
    reporter: Reporter
    launch: Launch
    task: Task
    data: Data
    built: Built
    example: Tensor
    cache: Path | None = None

    @classmethod
    def prepared(cls, request: Request, reporter: Reporter, launch: Launch) -> "Job":
        """Load data and model, and see whether they fit.

        Raises:
            UserMistake: they do not, or one cannot be had.
        """
        task = request.make_task()
        with reporter.step(f"reading {request.data}") as progress:
            data = load_data(
                request.data,
                seed=request.seed,
                input_shape=request.input_shape,
                progress=progress,
                seen=request.seen,
                classes=task.name == CLASSIFICATION,
                normalise=request.normalise,
                augment=request.augment,
                workers=request.workers,
            )
        for note in data.notes:
            reporter.line(note)
        with reporter.step(f"building {request.model}"):
            built = load_model(
                request.model,
                seed=request.seed,
                input_shape=data.input_shape,
                weights=request.weights,
                num_classes=request.num_classes,
            )
            check_fits(built.model, data, task, device=launch.device)
            if request.rewind:
                check_resettable(built.model)
        example, _ = next(batches(data.train, 2, launch.device))
        cache = None
        if request.allocate == "sensitivity":
            try:  # now, not after hours of training
                cache = writable_cache("sensitivity")
            except UserMistake as reason:
                reporter.line(f"the sensitivity scan will not be kept: {reason}")
        return cls(request, reporter, launch, task, data, built, example, cache)

    @property
    def model(self) -> nn.Module:
        """The model that the run works on."""
        return self.built.model

    def fresh(self, plan: Plan | None = None) -> nn.Module:
        """Return a further instance of the model as it was built, cut by a plan; its values do not matter."""
        request = self.request
        built = load_model(
            request.model, seed=request.seed, input_shape=self.data.input_shape, num_classes=request.num_classes
        )
        if plan is not None and plan.slices:
            cut_fresh(built.model, plan)
        return built.model.to(self.launch.device)

    def pictures(self) -> Tensor:
        """Return the pictures of the forward pass that latencies refer to, (N, C, H, W)."""
        batch = self.request.latency_batch
        return self.example[torch.arange(batch, device=self.example.device) % len(self.example)]

    def figure(self, model: nn.Module) -> float:
        """Return the task's figure of a model on the validation split, in all processes what the main one finds."""
        return self.launch.from_main(lambda: self.figure_alone(model, "validation"))

    def figure_alone(self, model: nn.Module, split: str) -> float:
        """Return the task's figure of a model on a split, in this process alone."""
        return figure_of(model, self.data, self.task, self.launch.device, split=split)

    @property
    def sample(self) -> Sample:
        """Pictures of the training split, for what needs some."""
        request = self.request
        return Sample(self.data.train, SCORED_PICTURES, request.batch_size, self.launch.device, request.seed)

    @property
    def score(self) -> Score:
        """The score; one that needs data sees pictures of the training split."""
        return self.request.make_score(self.sample)

    def scan(self, graph: cutback.Graph, told: Progress | None = None) -> cutback.Sensitivity:
        """Return the sensitivity of the model on the validation split; what is known already comes from the cache."""
        request, split = self.request, self.data.validation
        digest = hashlib.sha256()
        for images, labels in batches(split, READ_PICTURES, torch.device("cpu")):
            digest.update(images.contiguous().numpy().tobytes() + labels.contiguous().numpy().tobytes())
        return cutback.sensitivity(
            graph,
            self._worth_alone,
            ratios=request.ratios,
            score=self.score,
            processes=request.processes,
            cache=self.cache,
            label=f"{len(split)} {digest.hexdigest()}",
            told=told,
        )

    def train_baseline(self) -> None:
        """Train the model in place, unless it has weights."""
        epochs = self.request.baseline_epochs
        if epochs:
            settings = self.settings(epochs, self.request.learning_rate, 0)
            with self.reporter.step(f"training the baseline, {epochs} epochs") as progress:
                fit(self.model, self.data, settings, task=self.task, progress=progress, launch=self.launch)

    def cut(self, model: nn.Module, *, trying: bool = False) -> tuple[Plan, Proof]:
        """Cut a model in place, proven, in all processes alike.

        Args:
            model: the model.
            trying: only to see whether the cut is possible: without a sensitivity scan.

        Raises:
            CutbackError: it is not.
        """
        request = self.request
        graph = cutback.trace(model, self.example, granularity=request.granularity)
        allocate: Allocation | cutback.Sensitivity | str | None = request.make_allocation()
        if allocate is None:
            allocate = "uniform" if trying else self.scan(graph)
        plan = cutback.plan(
            graph,
            score=self.score,
            budget=request.budgets,
            ignore=request.ignore,
            round_to=request.round_to,
            min_channels=request.min_channels,
            max_removed=request.max_removed,
            allocate=allocate,
            latency=request.latency_setting,
        )
        plan = Plan.from_json(self.launch.from_main(plan.to_json))  # where times were measured, they differ
        proof = cutback.prove(graph, plan)
        cutback.apply_(graph, plan, prove=False, ignore_unreached=request.ignore_unreached)
        return plan, proof

    def try_out(self) -> None:
        """See on a copy whether the model can be pruned as asked for.

        Raises:
            CutbackError: it cannot.
        """
        copied = _copied(self.model)
        if self.request.method is None:
            self.cut(copied, trying=True)
            return
        settings = self.settings(self.request.epochs_of_method, self.request.method_learning_rate, 0)
        Loop(copied, self.data, settings, launch=self.launch, task=self.task, make_method=self.make_method)

    def make_method(self, loop: Loop) -> Method:
        """Make the method that prunes in a training loop.

        Raises:
            CutbackError: it refuses the model or a setting.
        """
        request, described = self.request, self.request.described_method
        if described is None:
            raise ValueError("no method was asked for")
        graph = cutback.trace(loop.wrapped, self.example, granularity=request.granularity)
        settings: dict[str, str | int] = {**request.settings_of_method}
        if any(setting.name == "steps" for setting in described.settings):
            settings.setdefault("steps", max(1, loop.steps * loop.settings.epochs))
        if any(setting.name == "folder" for setting in described.settings):
            settings.setdefault("folder", str(request.folder / described.name))
        given = {
            "budget": request.budgets or None,
            "optimizers": [loop.optimizer],
            "copies": loop.copies,
            "loader": self.sample,
            "loss": self.task.loss,
            "evaluate": self._worth,
        }
        return make_method(described.name, graph, settings=settings, given=given)

    def _worth(self, model: nn.Module) -> float:
        """Return a figure that is higher for better models, in all processes the same."""
        return self.launch.from_main(lambda: self._worth_alone(model))

    def _worth_alone(self, model: nn.Module) -> float:
        figure = self.figure_alone(model, "validation")
        return figure if self.task.higher_is_better else -figure

    def settings(self, epochs: int, learning_rate: float, later: int) -> TrainSettings:
        """Return the settings of one of the run's trainings.

        Args:
            epochs: passes over the training split.
            learning_rate: the highest.
            later: how many trainings come before; each has a seed of its own.
        """
        seed = self.request.seed + later
        return dataclasses.replace(self.request.training, epochs=epochs, learning_rate=learning_rate, seed=seed)


def _copied(model: nn.Module) -> nn.Module:
    """Copy a model.

    Raises:
        UserMistake: it holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UserMistake(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); make what it holds copyable"
        ) from error
