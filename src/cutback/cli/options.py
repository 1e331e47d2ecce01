"""The arguments and options that commands share, each declared once."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from cutback.errors import UserMistake
from cutback.train.data import Shape

DIMENSIONS = 3

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="cutback:NAME, torchvision:NAME, timm:NAME, hf:NAME, or path/to/file.py:function, which returns a model "
        "or a model and its example inputs.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="D",
        help="digits, mnist:DIR, imagefolder:DIR, hf:NAME, hf:parquet@FILES, torchvision:NAME@DIR, or "
        "file.py:function, which returns datasets.",
    ),
]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="CxHxW", help="Shape of one picture, such as 3x224x224; else the data's own."),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Trained weights: .safetensors, or .pt/.pth holding tensors only."),
]
NumClasses = Annotated[
    int | None, typer.Option(min=2, metavar="N", help="Replace the head by a new one with N outputs.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1.")]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="BUDGET",
        help="What the result may cost: macs=50%, params=3M, memory=20MiB, peak=8MiB, size=5MB, "
        "latency=8ms, channels=50%. Repeatable; all are met.",
        show_default=False,
    ),
]
Score = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What ranks the channels, see cutback scores; l1:leader puts coupled ones together in another way. Those "
        "that need data see 2,048 training pictures.",
    ),
]
Scores = Annotated[
    list[str],
    typer.Option(metavar="NAME", help="What is compared with the oracle, see cutback scores. Repeatable."),
]
Pictures = Annotated[
    int, typer.Option(min=1, metavar="N", help="Training pictures that oracle and scores see, in whole batches.")
]
Allocate = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="uniform: the same share of each group; greedy: the same, scored without removed inputs; global: lowest "
        "scores first (global-raw: as they are); isomorphic: among alike groups; per-macs, per-params, per-memory, "
        "per-latency: lowest score for what it saves; knapsack: highest total score; sensitivity: equal loss by "
        "a scan made first, FILE.json: by one made before.",
    ),
]
Ratios = Annotated[
    str,
    typer.Option(metavar="SHARES", help="Shares of each group that are removed in turn, such as 25%,50%,75%."),
]
Processes = Annotated[int, typer.Option(min=1, metavar="N", help="Evaluate in so many processes, of one thread each.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the curves.")]
Scatter = Annotated[Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw scores over the oracle.")]
Loss = Annotated[
    float,
    typer.Option(min=0, max=1, metavar="SHARE", help="Accuracy that a group alone may cost, for the suggested ratios."),
]
LatencyBatch = Annotated[
    int, typer.Option(min=1, metavar="N", help="Pictures in the forward pass that a latency refers to.")
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads that a latency refers to; else PyTorch's present number."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Modules whose outputs stay whole, such as 'layer4*'. Repeatable."),
]
IgnoreUnreached = Annotated[
    bool, typer.Option("--ignore-unreached", help="Cut even beside parameters that no forward pass has used.")
]
Granularity = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How groups of a convolution and attention heads shrink. channels: each by equally many; blocks: whole "
        "ones go.",
    ),
]
RoundTo = Annotated[int, typer.Option(min=1, metavar="N", help="Widths that change become multiples of N.")]
MaxRemoved = Annotated[
    str | None, typer.Option(metavar="SHARE", help="At most this share of each layer's channels goes, such as 80%.")
]
MinChannels = Annotated[int, typer.Option(min=1, metavar="N", help="So many channels stay in each layer.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the splits, the starting weights and the training.")]
Train = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="EPOCHS",
        help="Epochs of training before the cut; else 20, and 0 where --weights are given. 0 takes the model as it is.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder to write, which must not exist; else runs/ and the model's name."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")]


def parse_ratios(text: str) -> tuple[float, ...]:
    """Read ``"25%,50%"``.

    Raises:
        UserMistake: it is written in another way.

    Example:
        >>> parse_ratios("25%, 50%")
        (0.25, 0.5)
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        ratios = tuple(float(Fraction(part[:-1]) / 100 if part.endswith("%") else Fraction(part)) for part in parts)
    except (ValueError, ZeroDivisionError):
        ratios = ()
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise UserMistake(f"cannot read --ratios {text!r}; write shares between 0 % and 100 %, such as 25%,50%,75%")
    return ratios


def parse_shape(text: str | None) -> Shape | None:
    """Read ``"3x224x224"``.

    Raises:
        UserMistake: it is written in another way.

    Example:
        >>> parse_shape("3x224x224")
        (3, 224, 224)
    """
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")  # noqa: RUF001 (a user may well write the sign)
    if len(parts) != DIMENSIONS or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserMistake(f"cannot read --input {text!r}; write channels, height and width, such as 3x224x224")
    channels, height, width = map(int, parts)
    return channels, height, width
