"""``cutback prune``: the whole job, from a model and data to a smaller model that is proven, trained and measured."""

import typer

from cutback.cli import console, options
from cutback.cli.job import run_job
from cutback.cli.report import print_report
from cutback.cli.request import Request

EPILOG = """\b
Examples:
  cutback prune cutback:resnet20 --data digits --budget macs=50% --finetune 15 --out runs/demo
  cutback prune my.py:make --data imagefolder:pictures --input 3x32x32 --budget params=40% --budget peak=2MiB
  cutback prune torchvision:resnet18 --weights resnet18.pth --num-classes 10 --data my.py:datasets --budget macs=2G
"""


def prune(  # noqa: PLR0913, PLR0917 (one a command-line option)
    context: typer.Context,
    model: options.Model,
    data: options.Data = "digits",
    budget: options.Budget = None,
    input_text: options.Input = None,
    weights: options.Weights = None,
    num_classes: options.NumClasses = None,
    train: options.Train = None,
    finetune: options.Finetune = 15,
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
    lr: options.LearningRate = 0.05,
    finetune_lr: options.FinetuneLearningRate = 0.05,
    batch_size: options.BatchSize = 32,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Prune a model to a budget, prove the cut, fine-tune, measure and save.

    Without --weights the model is trained first. Accuracy is that of the test split, which is read once for each of
    dense, cut and final; epochs are chosen on the validation split.
    """
    request = Request(
        model=model,
        data=data,
        budgets=tuple(budget or ()),
        input_shape=options.parse_shape(input_text),
        weights=weights,
        num_classes=num_classes,
        train=train,
        finetune=finetune,
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
        learning_rate=lr,
        finetune_learning_rate=finetune_lr,
        batch_size=batch_size,
        seed=seed,
        device=device,
        out=out,
        arguments=tuple(context.find_root().obj or ()),
    )
    with console.stdout_kept_clean():
        report = run_job(request, console.Reporter())
    if json:
        console.print_json(report)
    else:
        print_report(report, request.folder)
