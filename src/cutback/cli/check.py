"""``cutback check``: what can be pruned, what cannot, and why."""

import cutback
from cutback.cli import console, options
from cutback.cli.models import load_model
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.labels import Boundary

EPILOG = """\b
Examples:
  cutback check cutback:resnet20
  cutback check torchvision:resnet50 --input 3x224x224
  cutback check my.py:make --input 3x32x32 --json
"""


def check(
    model: options.Model,
    input_text: options.Input = None,
    num_classes: options.NumClasses = None,
    json: options.Json = False,
) -> None:
    """Show what can be pruned in a model, what cannot and why. Needs no data and touches no weights."""
    reporter = console.Reporter()
    with console.stdout_kept_clean():
        shape = options.parse_shape(input_text)
        with reporter.step(f"building {model}"):
            built = load_model(model, seed=0, input_shape=shape, num_classes=num_classes)
        with reporter.step("tracing it"):
            graph = cutback.trace(built.model, built.inputs)
            macs = cutback.measure.macs(built.model, built.inputs)
    totals = {"macs": macs, "params": cutback.measure.params(built.model)}
    if json:
        shapes = [list(tensor.shape) for tensor in Inputs.of(built.inputs).tensors()]
        console.print_json({"model": model, "inputs": shapes, **totals, **_document(graph)})
        return
    print(
        f"{model} on {Inputs.of(built.inputs).describe()}: {macs:,} MACs (batch 1), {totals['params']:,} parameters\n"
    )
    print(graph)
    if graph.boundaries:
        print("\nboundaries")
    for boundary in graph.boundaries:
        print(f"  {boundary}")


def _document(graph: Graph) -> dict[str, object]:
    return {
        "groups": [{"name": group.name, "units": group.units, "layers": group.layers} for group in graph.groups],
        "kept": [
            {
                "layer": kept.layer,
                "channels": kept.channels,
                "total": kept.total,
                "reasons": [_boundary(reason) for reason in kept.reasons],
            }
            for kept in graph.kept
        ],
        "boundaries": [_boundary(boundary) for boundary in graph.boundaries],
        "unreached": graph.unreached,
        "train_failure": graph.train_failure,
    }


def _boundary(boundary: Boundary) -> dict[str, str]:
    return {"module": boundary.path, "operator": boundary.operator, "reason": boundary.reason}
