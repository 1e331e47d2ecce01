"""What ``cutback prune`` was asked for, and what can be said against it before any work."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cutback.cli.staging import check_new_folder
from cutback.errors import InvalidBudget, UnknownName, UserMistake
from cutback.graph.granularity import check_granularity
from cutback.measure import LatencySetting
from cutback.methods import Description, describe
from cutback.planning.allocation import Allocation, ready
from cutback.planning.budget import parse_budgets
from cutback.planning.limits import limits_of
from cutback.planning.sensitivity import Sensitivity
from cutback.registry import near_misses
from cutback.scores import Score, make_score
from cutback.train import TrainSettings
from cutback.train.data import Shape
from cutback.train.evaluation import cross_entropy
from cutback.train.launch import TIMEOUT
from cutback.train.recovery import Step, parse_recovery
from cutback.train.task import Task, classification, load_task
from cutback.trials.sensitivity import RATIOS

BASELINE_EPOCHS = 20
METHOD_EPOCHS = 20


@dataclass(frozen=True)
class Request:
    """The options of ``cutback prune``, see ``cutback prune --help``.

    Attributes:
        training: what all trainings of the run have in common; epochs, learning rates and seeds are set for each.
        arguments: the command line they came from.
    """

    model: str
    data: str
    budgets: tuple[str, ...]
    input_shape: Shape | None = None
    normalise: str | None = None
    augment: str | None = None
    workers: int = 0
    weights_seen: bool | None = None
    task: Path | None = None
    weights: Path | None = None
    num_classes: int | None = None
    train: int | None = None
    method: str | None = None
    method_settings: tuple[str, ...] = ()
    method_epochs: int | None = None
    recover: str | None = None
    finetune: int = 0
    rewind: bool = False
    score: str = "l1"
    allocate: str = "uniform"
    ignore: tuple[str, ...] = ()
    ignore_unreached: bool = False
    granularity: str = "channels"
    round_to: int = 1
    min_channels: int = 1
    latency_batch: int = 1
    threads: int | None = None
    ratios: tuple[float, ...] = RATIOS
    processes: int = 1
    max_removed: str | None = None
    training: TrainSettings = field(default_factory=lambda: TrainSettings(batch_size=32))
    learning_rate: float = 0.05
    method_learning_rate: float = 0.01
    finetune_learning_rate: float = 0.05
    seed: int = 0
    device: str = "cpu"
    timeout: float = TIMEOUT
    tensorboard: bool = False
    out: Path | None = None
    arguments: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Return the options as plain values for JSON."""
        return {
            key: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Request":
        """Read what ``to_document`` returned."""
        read = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
        paths = {key: Path(read[key]) for key in ("task", "weights", "out") if read[key] is not None}
        return cls(**{**read, **paths, "training": TrainSettings.from_document(read["training"])})

    @property
    def batch_size(self) -> int:
        """Pictures in a batch."""
        return self.training.batch_size

    @property
    def baseline_epochs(self) -> int:
        """Epochs of training before the cut."""
        if self.train is not None:
            return self.train
        return 0 if self.weights else BASELINE_EPOCHS

    @property
    def chain(self) -> tuple[Step, ...]:
        """The recovery steps.

        Raises:
            UserMistake: they cannot be read.
        """
        return parse_recovery(self.chain_text)

    @property
    def chain_text(self) -> str:
        """The recovery steps, as they are written."""
        if self.recover is not None:
            return self.recover
        return f"finetune:{self.finetune}" if self.finetune else "none"

    @property
    def folder(self) -> Path:
        """Folder to write."""
        return self.out or Path("runs") / (re.split(r"[:/\\]", self.model)[-1] or "model")

    @property
    def seen(self) -> bool:
        """Whether the starting weights have seen the training pictures, held-out ones included."""
        return self.weights is not None if self.weights_seen is None else self.weights_seen

    @property
    def latency_setting(self) -> LatencySetting:
        """What latencies refer to."""
        return LatencySetting(batch=self.latency_batch, threads=self.threads)

    @property
    def described_method(self) -> Description | None:
        """The method that prunes, ``None`` for a single cut.

        Raises:
            UnknownName: no method has that name.
        """
        return None if self.method is None else describe(self.method)

    @property
    def epochs_of_method(self) -> int:
        """Epochs of training in which the method prunes."""
        described = self.described_method
        if described is None or not described.about.trained:
            return 0
        return METHOD_EPOCHS if self.method_epochs is None else self.method_epochs

    @property
    def settings_of_method(self) -> dict[str, str]:
        """The method's settings, as they are written.

        Raises:
            UserMistake: one is not written as ``NAME=VALUE``.
        """
        pairs = [text.partition("=") for text in self.method_settings]
        for name, equals, _ in pairs:
            if not name or not equals:
                raise UserMistake(f"cannot read --set {name!r}; write --set NAME=VALUE")
        return {name.strip(): value.strip() for name, _, value in pairs}

    def make_task(self) -> Task:
        """Return what the network is trained for.

        Raises:
            UserMistake: the user's file cannot be used.
        """
        if self.task is None:
            return classification(self.training.label_smoothing)
        if self.training.label_smoothing:
            raise UserMistake("--label-smoothing is for classification; write it into the loss of your --task")
        return load_task(self.task)

    def make_score(self, loader: Iterable[object] = ()) -> Score:
        """Return the score, seeded where it draws at random; one that needs a loss gets the cross entropy.

        Args:
            loader: batches ``(inputs, labels)``, which a score that needs data reads when it is called.

        Raises:
            UnknownName: no score has that name.
            UserMistake: it cannot put coupled slices together in that way.
        """
        loss = cross_entropy if self.task is None else self.make_task().loss
        return make_score(self.score, loader=loader, loss=loss, seed=self.seed)

    def make_allocation(self) -> Allocation | None:
        """Return the allocation; of a file's name, the one by the sensitivity curves in it.

        ``None`` stands for one by curves that are still to be scanned.

        Raises:
            InvalidBudget: nothing is called that.
            UserMistake: the file cannot be read.
            CorruptFile: it holds no curves.
        """
        if self.allocate == "sensitivity":
            return None
        if not self.allocate.endswith(".json"):
            return ready(self.allocate)
        try:
            return ready(Sensitivity.from_json(Path(self.allocate).read_text(encoding="utf-8")))
        except (OSError, UnicodeError) as error:
            raise UserMistake(f"cannot read --allocate {self.allocate} ({error}); name a sensitivity scan") from error

    def check(self) -> None:
        """Refuse what cannot be carried out, as far as that shows without model and data.

        Raises:
            UserMistake: says which option is to be written otherwise.
        """
        self._check_method()
        self.check_model_options()
        chain = self.chain
        if self.rewind and not any(step.trains for step in chain):
            raise UserMistake(
                "--rewind draws new weights, and nothing trains them; add --finetune EPOCHS, or a step that trains to "
                "--recover"
            )
        check_new_folder(self.folder)

    def _check_method(self) -> None:
        """Refuse a budget that is missing, or of no use to the method; what else a method needs it says itself."""
        described, budgets = self.described_method, parse_budgets(self.budgets)
        if described is None:
            if not budgets:
                raise InvalidBudget("nothing says how much to remove; add for example --budget macs=50%")
            if self.method_settings or self.method_epochs is not None:
                raise UserMistake("--set and --method-epochs are for --method; add --method NAME (see cutback methods)")
            return
        if budgets and described.about.budget not in {"hits", "stops_below"}:
            raise UserMistake(f"method {described.name!r} takes no budget; leave --budget out")
        if self.method_epochs and not described.about.trained:
            raise UserMistake(f"method {described.name!r} cuts without training; leave --method-epochs out")
        known = [setting.name for setting in described.settings]
        for name in self.settings_of_method:
            if name.replace("-", "_") not in known:
                raise UnknownName(f"method {described.name!r} has no setting {name!r}; {near_misses(name, known)}")

    def check_model_options(self) -> None:
        """Refuse what cannot be carried out of the options on model, training and score.

        Raises:
            UserMistake: says which option is to be written otherwise.
        """
        self.make_score()
        self.make_allocation()
        self.make_task()
        limits_of(self.round_to, self.min_channels, self.max_removed)
        check_granularity(self.granularity)
        rates = {
            "--lr": self.learning_rate,
            "--method-lr": self.method_learning_rate,
            "--finetune-lr": self.finetune_learning_rate,
        }
        for option, rate in rates.items():
            if not 0 < rate < float("inf"):
                raise UserMistake(f"{option} must be above 0, not {rate:g}; write for example {option} 0.05")
        if self.weights and not self.weights.is_file():
            raise UserMistake(f"there is no file {self.weights}; give --weights a .safetensors, .pt or .pth file")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UserMistake(
                f"cannot compute on --device {self.device!r} ({str(error).splitlines()[0][:120]}); use --device cpu"
            ) from error
