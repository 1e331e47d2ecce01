"""What ``cutback prune`` was asked for, and what can be said against it before any work."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from cutback.cli.staging import check_new_folder
from cutback.errors import InvalidBudget, UserMistake
from cutback.graph.granularity import check_granularity
from cutback.measure import LatencySetting
from cutback.planning.allocation import Allocation, ready
from cutback.planning.budget import parse_budgets
from cutback.planning.limits import limits_of
from cutback.planning.sensitivity import Sensitivity
from cutback.scores import Score, make_score
from cutback.train.data import Shape
from cutback.train.evaluation import cross_entropy
from cutback.trials.sensitivity import RATIOS

BASELINE_EPOCHS = 20


@dataclass(frozen=True)
class Request:
    """The options of ``cutback prune``, see ``cutback prune --help``.

    Attributes:
        arguments: the command line they came from.
    """

    model: str
    data: str
    budgets: tuple[str, ...]
    input_shape: Shape | None = None
    weights: Path | None = None
    num_classes: int | None = None
    train: int | None = None
    finetune: int = 0
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
    learning_rate: float = 0.05
    finetune_learning_rate: float = 0.05
    batch_size: int = 32
    seed: int = 0
    device: str = "cpu"
    out: Path | None = None
    arguments: tuple[str, ...] = ()

    @property
    def baseline_epochs(self) -> int:
        """Epochs of training before the cut."""
        if self.train is not None:
            return self.train
        return 0 if self.weights else BASELINE_EPOCHS

    @property
    def folder(self) -> Path:
        """Folder to write."""
        return self.out or Path("runs") / (re.split(r"[:/\\]", self.model)[-1] or "model")

    @property
    def latency_setting(self) -> LatencySetting:
        """What latencies refer to."""
        return LatencySetting(batch=self.latency_batch, threads=self.threads)

    def make_score(self, loader: Iterable[object] = ()) -> Score:
        """Return the score, seeded where it draws at random; one that needs a loss gets the cross entropy.

        Args:
            loader: batches ``(inputs, labels)``, which a score that needs data reads when it is called.

        Raises:
            UnknownName: no score has that name.
            UserMistake: it cannot put coupled slices together in that way.
        """
        return make_score(self.score, loader=loader, loss=cross_entropy, seed=self.seed)

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
        if not parse_budgets(self.budgets):
            raise InvalidBudget("nothing says how much to remove; add for example --budget macs=50%")
        self.check_model_options()
        check_new_folder(self.folder)

    def check_model_options(self) -> None:
        """Refuse what cannot be carried out of the options on model, training and score.

        Raises:
            UserMistake: says which option is to be written otherwise.
        """
        self.make_score()
        self.make_allocation()
        limits_of(self.round_to, self.min_channels, self.max_removed)
        check_granularity(self.granularity)
        for option, rate in (("--lr", self.learning_rate), ("--finetune-lr", self.finetune_learning_rate)):
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
