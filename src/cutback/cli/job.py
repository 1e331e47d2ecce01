"""The whole job: train where there are no weights, cut, prove, fine-tune, measure, save."""

import copy
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import cutback
from cutback.cli.console import Reporter
from cutback.cli.models import Built, load_model
from cutback.cli.report import Stage, file_size, make_report
from cutback.cli.request import Request
from cutback.cli.staging import new_folder, writable_cache
from cutback.errors import UserMistake
from cutback.measure import compare_latency
from cutback.planning.allocation import Allocation
from cutback.planning.plan import Plan
from cutback.scores import Score
from cutback.surgery.verify import Proof
from cutback.train import Data, FitResult, Progress, check_model, evaluate, fit, load_data
from cutback.train.batches import Sample, batches

LATENCY_REPEATS = 50
READ_PICTURES = 256
"""Pictures in a batch where only their bytes are read."""
SCORED_PICTURES = 2048
"""Scores that need data see so many pictures of the training split."""


def run_job(request: Request, reporter: Reporter) -> dict[str, object]:
    """Carry out ``cutback prune``. Whatever is wrong with the request comes out before training starts.

    Args:
        request: what was asked for.
        reporter: told what is going on.

    Returns:
        The report, as written beside the model.

    Raises:
        CutbackError: the request cannot be carried out; nothing was written.
    """
    start = time.monotonic()
    request.check()
    job = Job.prepared(request, reporter)
    if request.baseline_epochs or request.allocate == "sensitivity":
        with reporter.step("trying the cut on a copy"):
            job.cut(_copied(job.built.model), trying=True)
    model, stages, networks = job.built.model, {}, {}
    baseline = job.fit("training the baseline", request.baseline_epochs, request.learning_rate, request.seed)
    stages["dense"], networks["dense"] = job.stage(model, baseline.best.top1), _copied(model)
    with reporter.step("cutting and proving"):
        plan, proof = job.cut(model)
    accuracy, networks["cut"] = job.test_accuracy(model), _copied(model)
    finetune = job.fit("fine-tuning", request.finetune, request.finetune_learning_rate, request.seed + 1)
    stages["cut"] = job.stage(networks["cut"], finetune.start.top1, accuracy)
    stages["final"], networks["final"] = job.stage(model, finetune.best.top1), model
    with reporter.step("timing"):
        latencies = compare_latency(networks, job.pictures(), repeats=LATENCY_REPEATS, threads=request.threads)
    report = make_report(
        request,
        job.data,
        stages=stages,
        latencies=latencies,
        trainings={"baseline": baseline, "finetune": finetune},
        plan=plan,
        proof=proof,
        reload=_reload_lines(job.built, request),
        seconds=time.monotonic() - start,
    )
    _write(model, plan, report, request)
    return report


@dataclass(frozen=True, eq=False)
class Job:
    """Model and data that fit each other, and the steps on them.

    Attributes:
        request: what was asked for.
        reporter: told what is going on.
        data: the data.
        built: the model.
        example: two training pictures, (2, C, H, W).
        cache: folder in which a sensitivity scan is kept; ``None`` for nowhere.
    """

    request: Request
    reporter: Reporter
    data: Data
    built: Built
    example: Tensor
    cache: Path | None = None

    @classmethod
    def prepared(cls, request: Request, reporter: Reporter) -> "Job":
        """Load data and model, and see whether they fit."""
        with reporter.step(f"reading {request.data}") as progress:
            data = load_data(request.data, seed=request.seed, input_shape=request.input_shape, progress=progress)
        with reporter.step(f"building {request.model}"):
            built = load_model(
                request.model,
                seed=request.seed,
                input_shape=data.input_shape,
                weights=request.weights,
                num_classes=request.num_classes,
            )
            check_model(built.model, data, device=request.device)
        example, _ = next(batches(data.train, 2, torch.device(request.device)))
        cache = None
        if request.allocate == "sensitivity":
            try:  # now, not after hours of training
                cache = writable_cache("sensitivity")
            except UserMistake as reason:
                reporter.line(f"the sensitivity scan will not be kept: {reason}")
        return cls(request, reporter, data, built, example, cache)

    def pictures(self) -> Tensor:
        """Return the pictures of the forward pass that latencies refer to, (N, C, H, W)."""
        batch = self.request.latency_batch
        return self.example[torch.arange(batch, device=self.example.device) % len(self.example)]

    @property
    def score(self) -> Score:
        """The score; one that needs data sees pictures of the training split."""
        request = self.request
        device = torch.device(request.device)
        return request.make_score(Sample(self.data.train, SCORED_PICTURES, request.batch_size, device, request.seed))

    def scan(self, graph: cutback.Graph, told: Progress | None = None) -> cutback.Sensitivity:
        """Return the sensitivity of the model on the validation split; what is known already comes from the cache."""
        request, split = self.request, self.data.validation
        digest = hashlib.sha256()
        for images, labels in batches(split, READ_PICTURES, torch.device("cpu")):
            digest.update(images.contiguous().numpy().tobytes() + labels.contiguous().numpy().tobytes())
        return cutback.sensitivity(
            graph,
            lambda model: evaluate(model, split, device=request.device).top1,
            ratios=request.ratios,
            score=self.score,
            processes=request.processes,
            cache=self.cache,
            label=f"{len(split)} {digest.hexdigest()}",
            told=told,
        )

    def cut(self, model: nn.Module, *, trying: bool = False) -> tuple[Plan, Proof]:
        """Cut a model in place, proven.

        Args:
            model: the model.
            trying: only to see whether the cut is possible: without a sensitivity scan.
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
        proof = cutback.prove(graph, plan)
        cutback.apply_(graph, plan, prove=False, ignore_unreached=request.ignore_unreached)
        return plan, proof

    def fit(self, title: str, epochs: int, learning_rate: float, seed: int) -> FitResult:
        """Train the model in place; without epochs only look at it."""
        model, request = self.built.model, self.request
        if not epochs:
            return FitResult(evaluate(model, self.data.validation, device=request.device), (), 0)
        with self.reporter.step(f"{title}, {epochs} epochs") as progress:
            return fit(
                model,
                self.data,
                epochs=epochs,
                seed=seed,
                learning_rate=learning_rate,
                batch_size=request.batch_size,
                device=request.device,
                progress=progress,
            )

    def test_accuracy(self, model: nn.Module) -> float:
        """Return the accuracy on the test split, in 0..1."""
        with self.reporter.step("reading the test split"):
            return evaluate(model, self.data.test, device=self.request.device).top1

    def stage(self, model: nn.Module, validation: float, accuracy: float | None = None) -> Stage:
        """Measure what a model is worth, on the test split where that has not been done yet."""
        return Stage(
            accuracy=self.test_accuracy(model) if accuracy is None else accuracy,
            validation_accuracy=validation,
            macs=cutback.measure.macs(model, self.example),
            params=cutback.measure.params(model),
            bytes=file_size(model),
        )


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


def _reload_lines(built: Built, request: Request) -> tuple[str, ...]:
    """Return the Python lines that load the result."""
    return (*built.imports, f"model = cutback.load({str(request.folder)!r}, build=lambda: {built.expression})")


def _write(model: nn.Module, plan: Plan, report: dict[str, object], request: Request) -> None:
    """Write weights, plan and report, all or nothing."""
    with new_folder(request.folder) as folder:
        checkpoint = folder / "checkpoint"
        cutback.save(model, plan, checkpoint)
        for path in list(checkpoint.iterdir()):
            path.rename(folder / path.name)
        checkpoint.rmdir()
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
