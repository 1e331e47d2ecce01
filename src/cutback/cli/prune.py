"""``cutback prune``: the whole job, from a model and data to a smaller model that is proven, trained and measured."""

import typer

from cutback.cli import console, options
from cutback.cli import training_options as training
from cutback.cli.report import print_report
from cutback.cli.request import Request
from cutback.cli.run import start_run
from cutback.errors import UserMistake
from cutback.train import TrainSettings

EPILOG = """\b
Examples:
  cutback prune cutback:resnet20 --data digits --budget macs=50% --finetune 15 --out runs/demo
  cutback prune my.py:make --data imagefolder:pictures --input 3x32x32 --budget params=40% --budget peak=2MiB
  cutback prune torchvision:resnet18 --weights resnet18.pth --num-classes 10 --data my.py:datasets --budget macs=2G
  cutback prune my.py:make --weights my.pt --data my.py:datasets --budget macs=50% --recover bn,distill:10,finetune:5
  torchrun --nproc-per-node 8 -m cutback prune timm:resnet50 --device cuda --precision bf16 --data ... --budget macs=2G

\b
The folder that --out names holds all that the run needs to go on: after an interruption of any kind,
cutback resume FOLDER ends it with the same bytes.
"""
FOR_ONE_CUT = {"score": "--score", "allocate": "--allocate", "round_to": "--round-to", "ignore": "--ignore"}
"""Options that speak of the single cut, for which a method stands in."""


def prune(  # noqa: PLR0913, PLR0917 (one a command-line option)
    context: typer.Context,
    model: options.Model,
    data: options.Data = "digits",
    budget: options.Budget = None,
    input_text: options.Input = None,
    normalise: training.Normalise = None,
    augment: training.Augment = None,
    workers: training.Workers = 0,
    seen: training.Seen = None,
    task: training.TaskFile = None,
    weights: options.Weights = None,
    num_classes: options.NumClasses = None,
    train: options.Train = None,
    method: training.Method = None,
    method_settings: training.MethodSettings = None,
    method_epochs: training.MethodEpochs = None,
    recover: training.Recover = None,
    finetune: training.Finetune = 15,
    rewind: training.Rewind = False,
    score: options.Score = "l1",
    allocate: options.Allocate = "uniform",
    ignore: options.Ignore = None,
    ignore_unreached: options.IgnoreUnreached = False,
    granularity: options.Granularity = "channels",
    round_to: options.RoundTo = 1,
    min_channels: options.MinChannels = 1,
    max_removed: options.MaxRemoved = None,
    latency_batch: options.LatencyBatch = 1,
    threads: options.Threads = None,
    lr: training.LearningRate = 0.05,
    method_lr: training.MethodLearningRate = 0.01,
    finetune_lr: training.FinetuneLearningRate = 0.05,
    batch_size: training.BatchSize = 32,
    optimizer: training.Optimizer = "sgd",
    momentum: training.Momentum = 0.9,
    weight_decay: training.WeightDecay = 5e-4,
    schedule: training.Schedule = "cosine",
    warm_up: training.WarmUp = None,
    label_smoothing: training.LabelSmoothing = 0.0,
    clip: training.Clip = None,
    accumulate: training.Accumulate = 1,
    ema: training.Average = None,
    precision: training.PrecisionName = "no",
    channels_last: training.ChannelsLast = False,
    patience: training.Patience = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    timeout: training.Timeout = 1800,
    checkpoint_steps: training.CheckpointSteps = 500,
    tensorboard: training.Tensorboard = False,
    out: options.Out = None,
    quiet: training.Quiet = False,
    json: options.Json = False,
) -> None:
    """Prune a model to a budget, prove the cut, win accuracy back, measure and save.

    Without --weights the model is trained first. Accuracy is that of the test split, which is read once at the end for
    each network; epochs are chosen on the validation split.
    """
    for name, option in FOR_ONE_CUT.items() if method else ():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UserMistake(
                f"{option} is for a single cut, but --method {method} prunes in its own way; leave it out"
            )
    request = Request(
        model=model,
        data=data,
        budgets=tuple(budget or ()),
        input_shape=options.parse_shape(input_text),
        normalise=normalise,
        augment=augment,
        workers=workers,
        weights_seen=seen,
        task=task,
        weights=weights,
        num_classes=num_classes,
        train=train,
        method=method,
        method_settings=tuple(method_settings or ()),
        method_epochs=method_epochs,
        recover=recover,
        finetune=finetune,
        rewind=rewind,
        score=score,
        allocate=allocate,
        ignore=tuple(ignore or ()),
        ignore_unreached=ignore_unreached,
        granularity=granularity,
        round_to=round_to,
        min_channels=min_channels,
        max_removed=max_removed,
        latency_batch=latency_batch,
        threads=threads,
        training=TrainSettings(
            batch_size=batch_size,
            optimizer=optimizer,  # type: ignore[arg-type] # checked there
            momentum=momentum,
            weight_decay=weight_decay,
            schedule=schedule,  # type: ignore[arg-type] # checked there
            warm_up=warm_up,
            label_smoothing=label_smoothing,
            clip=clip,
            accumulate=accumulate,
            average=ema,
            precision=precision,  # type: ignore[arg-type] # checked there
            channels_last=channels_last,
            patience=patience,
            checkpoint_steps=checkpoint_steps,
        ),
        learning_rate=lr,
        method_learning_rate=method_lr,
        finetune_learning_rate=finetune_lr,
        seed=seed,
        device=device,
        timeout=timeout,
        tensorboard=tensorboard,
        out=out,
        arguments=tuple(context.find_root().obj or ()),
    )
    with console.stdout_kept_clean():
        report = start_run(request, console.Reporter(quiet=quiet))
    if report is not None and json:
        console.print_json(report)
    elif report is not None:
        print_report(report, request.folder)
