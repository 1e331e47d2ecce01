"""``cutback sensitivity``: what each group costs when it alone is pruned, without training."""

from json import loads

from rich.table import Table

import cutback
from cutback.cli import console, options
from cutback.cli import training_options as training
from cutback.cli.curves import drawn
from cutback.cli.job import Job
from cutback.cli.request import Request
from cutback.cli.staging import check_file, write_whole
from cutback.train import TrainSettings
from cutback.train.launch import launched

EPILOG = """\b
Examples:
  cutback sensitivity cutback:resnet20 --data digits --plot curves.svg
  cutback sensitivity my.py:make --weights my.pt --data imagefolder:pictures --ratios 25%,50%,75% --json > scan.json
  cutback prune my.py:make --weights my.pt --data imagefolder:pictures --budget macs=50% --allocate scan.json
"""


def sensitivity(  # noqa: PLR0913, PLR0917 (one a command-line option)
    model: options.Model,
    data: options.Data = "digits",
    input_text: options.Input = None,
    normalise: training.Normalise = None,
    workers: training.Workers = 0,
    seen: training.Seen = None,
    weights: options.Weights = None,
    num_classes: options.NumClasses = None,
    train: options.Train = None,
    score: options.Score = "l1",
    ratios: options.Ratios = "10%,20%,30%,40%,50%,60%,70%,80%,90%",
    loss: options.Loss = 0.02,
    granularity: options.Granularity = "channels",
    processes: options.Processes = 1,
    lr: training.LearningRate = 0.05,
    batch_size: training.BatchSize = 32,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    plot: options.Plot = None,
    json: options.Json = False,
) -> None:
    """Remove ever more of each group alone, the lowest scores first, and evaluate on the validation split.

    Nothing is trained in between. Without --weights the model is trained first. What was evaluated is kept in the
    user's cache folder, so that a scan that was interrupted goes on.
    """
    request = Request(
        model=model,
        data=data,
        budgets=(),
        input_shape=options.parse_shape(input_text),
        normalise=normalise,
        workers=workers,
        weights_seen=seen,
        weights=weights,
        num_classes=num_classes,
        train=train,
        score=score,
        allocate="sensitivity",
        granularity=granularity,
        training=TrainSettings(batch_size=batch_size),
        learning_rate=lr,
        seed=seed,
        device=device,
        ratios=options.parse_ratios(ratios),
        processes=processes,
    )
    request.check_model_options()
    if plot:
        check_file(plot, ".svg", "--plot")
    reporter = console.Reporter()
    with console.stdout_kept_clean(), launched(request.device) as launch:
        job = Job.prepared(request, reporter, launch)
        job.train_baseline()
        graph = cutback.trace(job.model, job.example, granularity=request.granularity)
        with reporter.step("evaluating") as progress:
            found = job.scan(graph, progress)
    if plot:
        write_whole(plot, drawn(found, f"{model} on {data}, validation split, lowest {found.score} removed"))
    skip = found.skipped(loss=loss, removed=min(request.ratios))
    stages = found.stage_ratios(graph, loss=loss, skip=skip)
    if json:
        suggested = {"loss": loss, "skip": skip, "ratios": found.ratios(loss), "stage_ratios": stages}
        console.print_json({**loads(found.to_json()), **suggested})
    else:
        _print(found, skip, stages, loss)


def _print(found: cutback.Sensitivity, skip: list[str], stages: dict[str, float], loss: float) -> None:
    """Print the curves as a table, and what they suggest."""
    out = console.stdout()
    ratios = list(dict.fromkeys(ratio for curve in found.curves.values() for ratio in curve))
    table = Table("removed", *(f"{ratio:.0%}" for ratio in ratios), "stage", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for group, curve in found.curves.items():
        points = (f"{curve[ratio]:.1%}" if ratio in curve else "-" for ratio in ratios)
        table.add_row(group, *points, "skip" if group in skip else f"{stages.get(group, 0.0):.0%}")
    out.print(f"accuracy on the validation split, dense: {found.dense:.2%}")
    out.print(table)
    out.print(f"stage: what each group of its map size can lose at a cost of {loss:.1%} at most, alone and untrained")
