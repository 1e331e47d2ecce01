"""``cutback check``: what can be pruned, what cannot, and why."""

from pathlib import Path
from typing import Annotated

import typer

import cutback
from cutback.cli import console, findings, options
from cutback.cli.drawing import drawn
from cutback.cli.models import load_model
from cutback.cli.staging import check_file, write_whole
from cutback.graph.granularity import check_granularity
from cutback.graph.inputs import Inputs

EPILOG = """\b
Examples:
  cutback check cutback:resnet20
  cutback check torchvision:resnet50 --input 3x224x224
  cutback check cutback:resnet20 --graph coupling.svg
  cutback check my.py:make --input 3x32x32 --json

\b
A group is what must go together. Its channels are those of its first layer, its balance says which blocks must lose
equally many, and its MACs are the share of all MACs spent in the layers that make its channels. A boundary is an
operator that keeps channels: what it is, where it runs, the line of your code that calls it, and why.
"""

Drawing = Annotated[
    Path | None,
    typer.Option(
        "--graph",
        metavar="FILE.svg",
        help="Also draw the coupling: the layers in the order they run, coloured by group, with what consumes what.",
    ),
]


def check(
    model: options.Model,
    input_text: options.Input = None,
    num_classes: options.NumClasses = None,
    granularity: options.Granularity = "channels",
    drawing: Drawing = None,
    json: options.Json = False,
) -> None:
    """Show what can be pruned in a model, what cannot and why. Needs no data and touches no weights."""
    reporter = console.Reporter()
    if drawing is not None:
        check_file(drawing, ".svg", "--graph")
    check_granularity(granularity)
    with console.stdout_kept_clean():
        shape = options.parse_shape(input_text)
        with reporter.step(f"building {model}"):
            built = load_model(model, seed=0, input_shape=shape, num_classes=num_classes)
        with reporter.step("tracing it"):
            graph = cutback.trace(built.model, built.inputs, granularity=granularity)
            macs = cutback.measure.macs(built.model, built.inputs)
    totals = {"macs": macs, "params": cutback.measure.params(built.model)}
    if drawing is not None:
        write_whole(drawing, drawn(graph, model))
        reporter.line(f"drawn in {drawing}")
    if json:
        shapes = [list(tensor.shape) for tensor in Inputs.of(built.inputs).tensors()]
        console.print_json({"model": model, "inputs": shapes, **totals, **findings.document(graph)})
        return
    print(
        f"{model} on {Inputs.of(built.inputs).describe()}: {macs:,} MACs (batch 1), {totals['params']:,} parameters\n"
    )
    print(findings.text(graph))
