"""Gates: factors on activations, one a unit and sample, and their gradients. Every data-driven score is made of them.

``Gates(graph, site)`` is a context manager. Inside it the model, called as ever, runs gated::

    with Gates(graph, "consumer") as gates:  # reading: nothing is multiplied
        loss_function(model(images), labels).backward()
        fisher = {name: g.square().sum(0) for name, g in gates.take().items()}  # g: (N, units)

    with Gates(graph, "consumer", reading=False) as gates:  # masking
        gates.mask({"layer1.0.conv1": factors})  # (units,) or (N, units)
        logits = model(images)

    with Gates(graph, "feature", reading=False, observe=see):  # see(place, activation)
        model(images)

    with Gates(graph, "stream", masks="consumer") as gates:  # both, each at a site of its own
        gates.mask({"layer1.0.conv1": factors})

    with Gates(graph, reading=False, beside=told) as gates:  # told(group, next layer's output, the same with factors)
        gates.mask_beside({"layer1.0.conv1": factors})
        model(images)

Where samples do not meet (eval mode), many masks run in one pass, restarted from the layer that they touch::

    run = Restarts(graph, "consumer").on(images)  # (N, ...)
    logits = run.masked({"layer1.0.conv1": masks})  # (K, units) gives (K * N, classes)

A unit's gate stands at several places at once, and its gradient is the sum over them. Sites:

- ``consumer``: the input of every call that consumes the group's channels. A factor of zero silences them exactly as a
  cut does, except for the groups that ``mixed_groups`` names.
- ``input``: as ``consumer``, and the input of depthwise layers too, which pass channels on: where Group Fisher's masks
  stand.
- ``norm``: the output of the normalisation after each producer (of the producer, where none follows), before the
  activation.
- ``stream``: the end of each block, after its sum and activation, for groups whose channels are summed; else as
  ``norm``.
- ``output``: what each producer returns.
- ``feature``: as ``norm``, after the activation that follows, if one does.
- ``map``: the end of each block, as at ``stream``, for groups whose channels are summed; else as ``feature``.

Producers are the layers that make a group's channels, depthwise ones included. ``Place`` says which unit each element
of an activation belongs to; ``Gates.rows`` where its samples lie.
"""

from cutback.gates.beside import lone_consumers
from cutback.gates.gates import Gates
from cutback.gates.passing import Observer
from cutback.gates.places import SITES, Place, find_places, mixed_groups, stream_groups, ungatable_groups
from cutback.gates.restart import Restart, Restarts
from cutback.gates.rows import Rows

__all__ = [
    "SITES",
    "Gates",
    "Observer",
    "Place",
    "Restart",
    "Restarts",
    "Rows",
    "find_places",
    "lone_consumers",
    "mixed_groups",
    "stream_groups",
    "ungatable_groups",
]
