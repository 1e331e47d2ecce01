"""From a model and example inputs to the graph of what is coupled in it; and again, after a cut."""

import dataclasses
import warnings
from collections.abc import Callable, Sequence

from torch import nn

from cutback.errors import CaptureError, DataDependentControlFlow
from cutback.graph.baked import resolved
from cutback.graph.capture import Capture, capture
from cutback.graph.granularity import Granularity, whole_blocks
from cutback.graph.graph import Graph
from cutback.graph.groups import couple
from cutback.graph.inputs import Inputs
from cutback.graph.unwrap import unwrapped, wrappers_of


def traced(
    model: nn.Module,
    inputs: Inputs,
    *,
    granularity: Granularity = "channels",
    noted: Callable[[Sequence[Capture]], None] | None = None,
) -> Graph:
    """Record a model in eval and in train mode and couple its channels; see ``cutback.trace``.

    Args:
        model: the model, in its wrappers if it has any.
        inputs: the example inputs.
        granularity: how blocks of channels shrink.
        noted: called with the captures before they are labelled.

    Raises:
        CutbackError: see ``cutback.trace``.
    """
    wrappers, model = tuple(wrappers_of(model)), unwrapped(model)
    captures, failure = [capture(model, inputs, training=False)], ""
    try:
        captures.append(capture(model, inputs.doubled_batch(), training=True))
    except DataDependentControlFlow:
        raise
    except CaptureError as error:
        failure = str(error)
        warnings.warn(f"only eval mode is traced and proven: {failure}", stacklevel=3)
    if noted is not None:
        noted(captures)
    whole = whole_blocks(captures, granularity)
    graph, assumptions = couple(model, inputs, captures, whole=whole, train_failure=failure)
    return dataclasses.replace(resolved(graph, assumptions), wrappers=wrappers, granularity=granularity)


def retraced(graph: Graph) -> Graph:
    """Trace a graph's model again, after a cut, on the same inputs and in the same way.

    Wrappers are left out: those from before the cut refuse to run.

    Raises:
        CutbackError: see ``cutback.trace``.
    """
    with warnings.catch_warnings():
        if graph.train_failure:  # told when it was traced first
            warnings.simplefilter("ignore")
        return traced(graph.model, graph.inputs, granularity=graph.granularity)
