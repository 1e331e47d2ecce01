"""The options of training, pruning while training, and recovery, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

Finetune = Annotated[
    int, typer.Option(min=0, metavar="EPOCHS", help="Epochs of training after the cut, where --recover is not given.")
]
Recover = Annotated[
    str | None,
    typer.Option(
        metavar="CHAIN",
        help="What wins accuracy back, in turn: bn (batch norm statistics), least-squares, distill:EPOCHS from the "
        "dense network, finetune:EPOCHS; such as bn,distill:20,finetune:10, or none.",
        show_default=False,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Prune by a published method while training, see cutback methods, instead of by one cut.",
        show_default=False,
    ),
]
MethodSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of --method. Repeatable.", show_default=False),
]
MethodEpochs = Annotated[
    int | None,
    typer.Option(min=0, metavar="EPOCHS", help="Epochs in which --method prunes; else 20.", show_default=False),
]
Rewind = Annotated[
    bool,
    typer.Option(
        "--rewind",
        help="After the cut draw new weights, so that the widths that were found are trained from scratch.",
    ),
]
TaskFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.py",
        help="What the network is for, where that is not classification: loss(outputs, targets), "
        "metric(model, batches) and higher_is_better.",
        show_default=False,
    ),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET",
        help="Normalise pictures by a preset such as imagenet, as weights may expect; else by the data's own figures.",
        show_default=False,
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="What is done at random to training pictures: none, or some of shift:PIXELS, flip and resized-crop; else "
        "what is usual for the data.",
        show_default=False,
    ),
]
Seen = Annotated[
    bool | None,
    typer.Option(
        "--seen/--not-seen",
        help="Whether the starting weights have seen the training pictures: validation and test are then halves of the "
        "test split, where there is one. Else so if --weights are given.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option(min=0, metavar="N", help="Processes that read pictures from files.")]
LearningRate = Annotated[float, typer.Option("--lr", metavar="RATE", help="Highest learning rate before the cut.")]
MethodLearningRate = Annotated[
    float, typer.Option("--method-lr", metavar="RATE", help="Highest learning rate while --method prunes.")
]
FinetuneLearningRate = Annotated[
    float, typer.Option("--finetune-lr", metavar="RATE", help="Highest learning rate after the cut.")
]
BatchSize = Annotated[
    int, typer.Option(min=1, metavar="N", help="Pictures in a step of training, over all processes together.")
]
Optimizer = Annotated[str, typer.Option(metavar="NAME", help="sgd (with Nesterov momentum) or adamw.")]
Momentum = Annotated[float, typer.Option(metavar="SHARE", help="Momentum of sgd.")]
WeightDecay = Annotated[float, typer.Option(metavar="RATE", help="Weight decay, on all parameters.")]
Schedule = Annotated[
    str, typer.Option(metavar="NAME", help="How the learning rate falls: cosine, step, one-cycle or constant.")
]
WarmUp = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of a training in which the learning rate rises; else 0.15 for cosine, 0.3 for one-cycle, 0.",
        show_default=False,
    ),
]
LabelSmoothing = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of each label that is spread over all classes.")
]
Clip = Annotated[
    float | None, typer.Option(metavar="NORM", help="Highest norm of all gradients together.", show_default=False)
]
Accumulate = Annotated[int, typer.Option(min=1, metavar="N", help="Micro-batches computed in turn for one step.")]
Average = Annotated[
    float | None,
    typer.Option(
        "--ema",
        metavar="DECAY",
        help="Keep a moving average of the weights, such as 0.999: it is what is evaluated and kept.",
        show_default=False,
    ),
]
PrecisionName = Annotated[str, typer.Option("--precision", metavar="NAME", help="no (float32), bf16 or fp16.")]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="Keep pictures in that order of memory.")]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="EPOCHS", help="Stop a training after so many epochs without a better one.", show_default=False
    ),
]
CheckpointSteps = Annotated[
    int, typer.Option(min=1, metavar="N", help="Steps between checkpoints; one more is made after every epoch.")
]
Timeout = Annotated[
    float, typer.Option(min=1, metavar="SECONDS", help="How long processes that train together wait for each other.")
]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard too, into the folder.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing while it runs.")]
