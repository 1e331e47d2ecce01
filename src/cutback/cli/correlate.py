"""``cutback correlate``: how well scores foretell what the loss does without each unit."""

import dataclasses
from json import loads

from rich.table import Table

import cutback
from cutback.cli import console, options
from cutback.cli import training_options as training
from cutback.cli.job import Job
from cutback.cli.request import Request
from cutback.cli.scatter import scattered
from cutback.cli.staging import check_file, write_whole
from cutback.scores import Oracle
from cutback.train import TrainSettings
from cutback.train.batches import Sample
from cutback.train.launch import launched
from cutback.trials.correlation import Agreement

SCORES = ("taylor", "l1", "l2", "random")
EPILOG = """\b
Examples:
  cutback correlate cutback:resnet20 --data digits --plot scatter.svg
  cutback correlate my.py:make --weights my.pt --data imagefolder:pictures --score taylor --score fisher --json

\b
The oracle silences each unit in turn and takes the squared change of each batch's loss, averaged over batches
(Molchanov 2019), in eval mode; scores see the same batches. Columns: Spearman's and Kendall's rank correlation,
Pearson's correlation of the logarithms and of the values.
"""


def correlate(  # noqa: PLR0913, PLR0917 (one a command-line option)
    model: options.Model,
    data: options.Data = "digits",
    score: options.Scores = list(SCORES),  # noqa: B006 (typer reads it, nothing writes to it)
    input_text: options.Input = None,
    weights: options.Weights = None,
    num_classes: options.NumClasses = None,
    train: options.Train = None,
    pictures: options.Pictures = 1280,
    granularity: options.Granularity = "channels",
    lr: training.LearningRate = 0.05,
    batch_size: training.BatchSize = 64,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    plot: options.Scatter = None,
    json: options.Json = False,
) -> None:
    """Compare scores with an oracle that tries the network without each unit, one after the other.

    Without --weights the model is trained first. The oracle runs the network once a unit and batch, from the layer that
    the unit's channels enter: its time grows with both.
    """
    request = Request(
        model=model,
        data=data,
        budgets=(),
        input_shape=options.parse_shape(input_text),
        weights=weights,
        num_classes=num_classes,
        train=train,
        granularity=granularity,
        training=TrainSettings(batch_size=batch_size),
        learning_rate=lr,
        seed=seed,
        device=device,
    )
    requests = {name: dataclasses.replace(request, score=name) for name in score}
    for asked in requests.values():
        asked.check_model_options()
    if plot:
        check_file(plot, ".svg", "--plot")
    reporter = console.Reporter()
    with console.stdout_kept_clean(), launched(request.device) as launch:
        job = Job.prepared(request, reporter, launch)
        job.train_baseline()
        graph = cutback.trace(job.model, job.example, granularity=request.granularity)
        batches = Sample(job.data.train, pictures, batch_size, launch.device, seed)
        rated = {name: asked.make_score(batches) for name, asked in requests.items()}
        with reporter.step("comparing") as progress:
            found = cutback.correlate(graph, rated, Oracle(batches, job.task.loss, squared=True), told=progress)
    if plot:
        write_whole(plot, scattered(found, f"{model} on {data}: scores and the oracle"))
    if json:
        console.print_json(loads(found.to_json()))
    else:
        _print(found)


def _print(found: cutback.Correlation) -> None:
    """Print a table of all coefficients: for each score over all units, then in each group."""
    table = Table(
        "score", "units of", "units", "Spearman", "Kendall", "Pearson log", "Pearson", box=None, pad_edge=False
    )
    for column in table.columns[2:]:
        column.justify = "right"
    for name, overall in found.overall.items():
        rows = {"all groups": overall}
        if found.streams:
            rows["all but streams"] = found.without_streams[name]
        for units, agreement in {**rows, **found.groups[name]}.items():
            table.add_row(name, f"{units} (stream)" if units in found.streams else units, *_written(agreement))
    console.stdout().print(table)


def _written(found: Agreement) -> list[str]:
    """Return the columns of one comparison."""
    coefficients = (found.spearman, found.kendall, found.log_pearson, found.pearson)
    return [str(found.units), *("-" if value is None else f"{value:.3f}" for value in coefficients)]
