"""The training loop: epochs of steps, with a method in it if there is one, that goes on from any checkpoint."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from cutback.errors import CutbackError, UserMistake
from cutback.graph.clone import random_state_kept, set_training
from cutback.methods import Method
from cutback.planning.plan import Plan
from cutback.surgery.cut import cut_fresh
from cutback.surgery.wrappers import rewrap
from cutback.train.average import Average
from cutback.train.batches import TrainingBatches
from cutback.train.data import Data
from cutback.train.judging import figure_of
from cutback.train.launch import Launch
from cutback.train.progress import Progress
from cutback.train.random_state import random_state, restore_random_state
from cutback.train.records import Epoch, FitResult
from cutback.train.seeds import seed_everything
from cutback.train.settings import Schedule, TrainSettings
from cutback.train.task import Objective, Task
from cutback.train.weights import put_weights, weights_of

MethodMaker = Callable[["Loop"], Method]
"""Makes the method of a run from the loop: its wrapped model, its optimiser and the copies."""


class TrainingDiverged(CutbackError):
    """The training loss became infinite or not a number."""


@dataclass(frozen=True)
class Watch:
    """Who is told what while a network is trained; called in the main process alone but for ``checkpoint``.

    Attributes:
        progress: told after every step.
        epoch: told after every epoch: its record, the learning rate and the pictures a second.
        checkpoint: called in all processes after every epoch and every ``checkpoint_steps`` steps, with the loop.
    """

    progress: Progress | None = None
    epoch: Callable[[Epoch, float, float], None] | None = None
    checkpoint: Callable[["Loop"], None] | None = None


class Loop:
    """One training run: made, then ``run``; at a checkpoint ``state`` is all that another needs to go on.

    Args:
        model: the network, which is trained in place; to go on from a state, as it was at the start of the run.
        data: trained on ``train``, compared on ``validation``; ``test`` is not read.
        settings: how it is trained.
        launch: where.
        task: what for.
        objective: what is minimised over a micro-batch; ``None`` for the task's own.
        make_method: makes the method that runs in the loop, ``None`` for none. The run then keeps the last weights and
            ends when the method has finished.
        state: what ``state`` returned at a checkpoint.
        watch: who is told what.

    Attributes:
        model: the network.
        wrapped: the network as it is called.
        optimizer: its optimiser.
        average: the moving average of its weights, if there is one.
        method: the method, if there is one.
        last: after the run, the weights of the last epoch where others were kept.

    Raises:
        UserMistake: the network has nothing to train.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        settings: TrainSettings,
        *,
        launch: Launch,
        task: Task,
        objective: Objective | None = None,
        make_method: MethodMaker | None = None,
        state: Mapping[str, Any] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model, self.settings, self.launch, self.task = model, settings, launch, task
        self._data, self._watch = data, watch or Watch()
        self._objective = objective or task.objective
        self._state = state
        if state is not None:
            if state["plan"] is not None:
                cut_fresh(model, Plan.from_json(state["plan"]))
            put_weights(model, state["model"])
        model.to(launch.device)
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            raise UserMistake("the model has no parameters that require a gradient; nothing can be trained")
        self._feeds = [self._feed(number) for number in range(settings.accumulate)]
        self.steps = len(self._feeds[0])
        self.optimizer = settings.make_optimizer(parameters)
        self._schedule = Schedule(self.optimizer, settings, self.steps * settings.epochs)
        self.average = Average(model, settings.average) if settings.average else None
        if state is not None and self.average is not None:
            self.average.load(state["average"])
        self.wrapped = launch.wrap(model)
        self._names = set(weights_of(model))  # a method may add others while it is attached
        self.method = make_method(self) if make_method else None
        if state is not None and self.method is not None:
            self.method.load_state_dict(state["ranks"][launch.rank]["method"])
        # Where the run is.
        self._epoch, self._step = 1, 0
        self._loss, self._count = torch.zeros((), dtype=torch.float64, device=launch.device), 0
        self._start = math.nan
        self._records: list[Epoch] = []
        self._chosen, self._stopped = 0, ""
        self._best: dict[str, Tensor] | None = None
        self.last: dict[str, Tensor] | None = None

    @property
    def copies(self) -> list[nn.Module]:
        """What a method cuts along with the network."""
        return [] if self.average is None else [self.average]

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept: the average, if there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def keeps_last(self) -> bool:
        """Whether the last weights are kept, not the best."""
        return self.settings.keep == "last" or self.method is not None

    def run(self) -> FitResult:
        """Train to the end; the model then has the weights that are kept, and the modes in which its modules came.

        On an exception it has the best weights so far, or with a method or ``keep="last"`` the present ones. The global
        random states are as before.

        Raises:
            DataError: model and data do not fit.
            TrainingDiverged: the loss is no longer finite.
        """
        modes = set_training(self.model, True)
        with random_state_kept():
            try:
                with self.method or contextlib.nullcontext():
                    self.wrapped = rewrap(self.wrapped)  # some methods cut on entry
                    self._begin()
                    while not self._over:
                        self._run_epoch()
                    if self._records and self._chosen < self._records[-1].number:
                        self.last = weights_of(self.judged)
            finally:
                if self._best is not None:
                    put_weights(self.model, self._best)
                set_training(self.model, modes)
        if self.keeps_last and self.average is not None:
            put_weights(self.model, weights_of(self.average.module))
        self.launch.share(self.model)  # running statistics are those of the main process, which has judged them
        return FitResult(self._start, tuple(self._records), self._chosen, self._stopped)

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on; to be called in all processes together, at a checkpoint."""
        method = self.method
        plan = None if method is None else method.plan()
        own = {
            "random": random_state(self.launch.device),
            "method": None if method is None else method.state_dict(),
            "loss": self._loss.cpu(),
            "count": self._count,
        }
        scaler = self.launch.scaler
        return {
            "plan": None if plan is None else plan.to_json(),
            "model": {name: value for name, value in weights_of(self.model).items() if name in self._names},
            "average": None if self.average is None else self.average.state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduled": self._schedule.taken,
            "scaler": None if scaler is None else scaler.state_dict(),
            "ranks": self.launch.gathered(own),
            "epoch": self._epoch,
            "step": self._step,
            "result": FitResult(self._start, tuple(self._records), self._chosen, self._stopped).to_document(),
            "best": self._best,
        }

    @property
    def _over(self) -> bool:
        finished = self.method is not None and self.method.finished
        return self._epoch > self.settings.epochs or bool(self._stopped) or finished

    def _feed(self, number: int) -> TrainingBatches:
        """Return the batches of one micro-batch of each step; all micro-batches of all processes are shares of it."""
        settings, launch = self.settings, self.launch
        return TrainingBatches(
            self._data,
            settings.batch_size,
            launch.device,
            settings.seed,
            rank=launch.rank * settings.accumulate + number,
            ranks=launch.ranks * settings.accumulate,
        )

    def _begin(self) -> None:
        """Seed and look at the start, or take up the state of a checkpoint."""
        state, launch = self._state, self.launch
        self._state = None  # tensors of it are in use twice otherwise
        if state is None:
            seed_everything(self.settings.seed + launch.rank)
            self._start = self._evaluate()
            if not self.keeps_last:
                self._best = weights_of(self.judged)
            return
        self.optimizer.load_state_dict(state["optimizer"])
        self._schedule.taken = state["scheduled"]
        if launch.scaler is not None:
            launch.scaler.load_state_dict(state["scaler"])
        self._epoch, self._step = state["epoch"], state["step"]
        own = state["ranks"][launch.rank]
        self._loss, self._count = own["loss"].to(launch.device), own["count"]
        result = FitResult.from_document(state["result"])
        self._start, self._records = result.start, list(result.epochs)
        self._chosen, self._stopped, self._best = result.chosen_epoch, result.stopped, state["best"]
        restore_random_state(own["random"], launch.device)

    def _run_epoch(self) -> None:
        """Go on with an epoch from the step at which it is, to its end."""
        settings, watch = self.settings, self._watch
        begun, seen, rate = time.monotonic(), 0, 0.0
        for micro_batches in self._batches():
            rate = self._schedule.set() * settings.learning_rate
            seen += self._train_step(micro_batches) * self.launch.ranks
            self._step += 1
            if watch.progress is not None and self.launch.is_main:
                speed = seen / max(time.monotonic() - begun, 1e-9)
                watch.progress(self._taken, self.steps * settings.epochs, self._text(speed))
            if self.method is not None and self.method.finished:
                break
            if self._step % settings.checkpoint_steps == 0 and self._step < self.steps:
                self._checkpoint()
        self._end_epoch(rate, seen / max(time.monotonic() - begun, 1e-9))

    @property
    def _taken(self) -> int:
        return (self._epoch - 1) * self.steps + self._step

    def _text(self, speed: float) -> str:
        shown = self._records[-1].validation if self._records else self._start
        figure = self.task.shown(shown)
        return f"epoch {self._epoch}/{self.settings.epochs}, validation {figure}, {speed:,.0f} pictures/s"

    def _batches(self) -> Iterator[Sequence[tuple[Any, Any]]]:
        """Yield the micro-batches of each step that is left of the epoch."""
        return zip(*(feed.epoch(self._epoch, start=self._step) for feed in self._feeds), strict=True)

    def _train_step(self, micro_batches: Sequence[tuple[Any, Any]]) -> int:
        """Take one step; return how many pictures this process has seen in it."""
        launch, method, settings = self.launch, self.method, self.settings
        self.optimizer.zero_grad(set_to_none=True)
        seen = 0
        for number, (inputs, targets) in enumerate(micro_batches, 1):
            whole = number == len(micro_batches)
            with contextlib.nullcontext() if whole else self._alone():
                with launch.autocast():
                    loss = self._objective(self.wrapped, self._arranged(inputs), targets)
                count = _count(inputs)
                self._loss += loss.detach().double() * count
                self._count, seen = self._count + count, seen + count
                if method is not None:
                    loss = loss + method.penalty()
                launch.backward(loss / len(micro_batches) if micro_batches[1:] else loss)
                if method is not None:
                    method.after_backward()
        if launch.scaler is not None:
            launch.scaler.unscale_(self.optimizer)
        if method is not None:
            method.before_step(launch.scaler)
        if settings.clip is not None:
            held = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            clip_grad_norm_(held, settings.clip)
        if launch.scaler is None:
            self.optimizer.step()
        else:
            launch.scaler.step(self.optimizer)
            launch.scaler.update()
        self._schedule.advance()
        if method is not None and method.after_step():
            self.wrapped = rewrap(self.wrapped)
        if self.average is not None:
            self.average.update(self.model)
        return seen

    def _alone(self) -> AbstractContextManager[Any]:
        return self.launch.alone(self.wrapped)

    def _arranged(self, inputs: Any) -> Any:  # noqa: ANN401 (whatever the data yields)
        if self.settings.channels_last and isinstance(inputs, Tensor) and inputs.dim() == 4:
            return inputs.to(memory_format=torch.channels_last)
        return inputs

    def _end_epoch(self, rate: float, speed: float) -> None:
        """Evaluate, keep the weights if they are the best, record, and make a checkpoint."""
        settings = self.settings
        loss = self._mean_loss()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the training loss became {loss} in epoch {self._epoch}; lower the learning rate "
                f"(now {settings.learning_rate:g}, try {settings.learning_rate / 10:g})"
            )
        record = Epoch(self._epoch, loss, self._evaluate())
        chosen = self._records[self._chosen - 1].validation if self._chosen else self._start
        self._records.append(record)
        if self.keeps_last:
            self._chosen = record.number
        elif not self.task.better(chosen, record.validation):  # of two that are equal, the later one
            self._chosen, self._best = record.number, weights_of(self.judged)
        if settings.patience is not None and self._since_better >= settings.patience:
            self._stopped = f"no better epoch in {settings.patience}"
        self._epoch, self._step = self._epoch + 1, 0
        self._loss, self._count = torch.zeros_like(self._loss), 0
        if self._watch.epoch is not None and self.launch.is_main:
            self._watch.epoch(record, rate, speed)
        self._checkpoint()

    @property
    def _since_better(self) -> int:
        """How many epochs have passed since the best figure was first reached."""
        figures = [self._start, *(record.validation for record in self._records)]
        return len(figures) - 1 - figures.index(figures[self._chosen])

    def _mean_loss(self) -> float:
        """Return the mean loss of the epoch so far, over all processes."""
        found = self.launch.gathered((self._loss.item(), self._count))
        return sum(loss for loss, _ in found) / max(sum(count for _, count in found), 1)

    def _evaluate(self) -> float:
        """Return the task's figure on the validation split."""
        return self.launch.from_main(lambda: figure_of(self.judged, self._data, self.task, self.launch.device))

    def _checkpoint(self) -> None:
        if self._watch.checkpoint is not None:
            self._watch.checkpoint(self)


def _count(inputs: Any) -> int:  # noqa: ANN401 (whatever the data yields)
    """Return the number of pictures in a micro-batch."""
    while isinstance(inputs, Mapping):
        inputs = next(iter(inputs.values()))
    return len(inputs)
