"""The public verbs: trace, plan, apply_, apply, prune, save, load."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from cutback.errors import InvalidBudget, UserMistake
from cutback.graph.clone import independent_copy
from cutback.graph.granularity import Granularity
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.trace import traced
from cutback.graph.unwrap import unwrapped
from cutback.io.checkpoint import load_checkpoint, read_plan, save_checkpoint
from cutback.measure.setting import LatencySetting
from cutback.planning.allocation import Allocation
from cutback.planning.budget import Budget, parse_budgets
from cutback.planning.make import make_plan
from cutback.planning.plan import Plan
from cutback.planning.sensitivity import Sensitivity
from cutback.planning.shares import Share
from cutback.scores.catalogue import Score
from cutback.surgery.converting import graph_form, note_sources
from cutback.surgery.cut import Gradients, cut_in_place
from cutback.surgery.graph_form import GraphForm
from cutback.surgery.verify import Proof
from cutback.trials.latency_budget import plan_within_latency

Model = TypeVar("Model", bound=nn.Module)
Kind = TypeVar("Kind")


Form = Literal["module", "graph"]


def trace(
    model: nn.Module, example_inputs: object, *, granularity: Granularity = "channels", form: Form = "module"
) -> Graph:
    """Find out what is coupled in a model, and what cannot be pruned and why.

    The forward pass is recorded in eval and in train mode on fake tensors, without dropout; the model is left exactly
    as it was. A batch of one is doubled for train mode.

    Args:
        model: any CNN, in any mode, on any device. What ``torch.compile``, ``DistributedDataParallel`` or
            ``DataParallel`` have wrapped is traced, and later cut, inside its wrapper (see ``rewrap``).
        example_inputs: a tensor ``(N, C, H, W)`` or whatever ``forward`` takes: a tuple of positional arguments or a
            dict of keyword arguments.
        granularity: how grouped convolutions and attention heads shrink: ``"channels"`` (all groups and heads stay and
            lose equally many channels each, at different positions) or ``"blocks"`` (whole groups and heads go); or a
            dict from module path patterns to one of these: ``{"layer4.*": "blocks"}``.
        form: what will be cut. ``"module"``: the model itself; channels behind a size that its code holds as a literal
            stay. ``"graph"``: a copy of it as an ``fx.GraphModule`` (``graph.model``), in which such sizes are
            attributes and follow the cut; see ``apply``.

    Returns:
        A graph; ``print(graph)`` shows the groups and what stays.

    Raises:
        UserMistake: the model is no module, a compiled script or sharded, the inputs hold no tensor, or there is no
            such granularity or form.
        UnknownName: a pattern of ``granularity`` matches no module.
        CaptureError: the model fails on the inputs; the message carries its own error.
        DataDependentControlFlow: its path depends on values.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> [(group.name, group.units) for group in graph.groups]
        [('0', 8)]
    """
    _check_module(model)
    _check_form(form)
    inputs, inner = Inputs.of(example_inputs), unwrapped(model)
    if form == "graph" and not isinstance(inner, GraphForm):
        converted = graph_form(inner, inputs)
        return traced(converted, inputs, granularity=granularity, noted=lambda captures: note_sources(captures, inner))
    return traced(model, inputs, granularity=granularity)


def plan(
    graph: Graph,
    *,
    score: str | Score | type[Score] = "l1",
    budget: str | Budget | Sequence[str | Budget] | None = None,
    keep: Mapping[str, Share] | None = None,
    ignore: str | Sequence[str] = (),
    round_to: int = 1,
    min_channels: int = 1,
    max_removed: str | float | None = None,
    allocate: str | Allocation | Sensitivity = "uniform",
    latency: LatencySetting | None = None,
) -> Plan:
    """Choose what to remove. Changes nothing.

    A latency budget is met as measured: this machine's layers are timed at many widths (once; the times are kept in the
    user's cache folder), and the cut is tried on a copy, timed in turns with the model, until it takes at most 5 % less
    than asked for and not more. Where nothing that was tried ends below the target, the nearest within 5 % above it, as
    measured, is taken; anything slower is refused. ``notes`` tells what was measured. Where several processes train
    together, plan in one and send the plan to the others: each would measure something else.

    Args:
        graph: from ``trace``.
        score: a registered name (``l1``; ``l1:leader`` with another aggregate over coupled channels), a score or its
            class; of equal units the first stays. One that needs data is made with it: ``cutback.scores.APoZ(loader)``.
        budget: what the result may cost, in per cent of the dense network or absolute: ``"macs=50%"``, ``"params=3M"``,
            ``"memory=20MiB"`` (outputs of convolutions), ``"peak=8MiB"`` (the most activations that are live at once),
            ``"size=5MB"`` (of the saved file), ``"latency=8ms"`` (of one forward pass in eval mode on this machine),
            ``"channels=50%"`` (the share of each group that stays, rounded down), or several. MACs and memory are those
            of a batch of one. The result is never over a budget (latency: within 5 % of the target as measured), and
            within 1 % of the dense cost below the binding one wherever steps are that fine (else ``notes`` says so).
        keep: by hand, module path patterns to what stays of the layer: ``{"layer1.*.conv1": "40%"}`` or a number of
            channels. Shares round down.
        ignore: module path patterns whose outputs stay whole; a pattern may name a layer, a module that holds layers,
            or a parameter that the model itself holds.
        round_to: widths that change become multiples of this; ``notes`` names those that cannot.
        min_channels: so many channels stay in each layer.
        max_removed: at most this share of each layer's channels goes: ``"80%"`` or 0.8.
        allocate: how the cut is shared out. ``uniform``: the same share of each group. ``greedy``: the same, each layer
            scored without the inputs that are gone. ``global``: lowest scores first wherever they are, each group's
            scores divided by their mean; ``global-raw``: as they are. ``isomorphic``: as ``global``, among groups of
            the same form. ``per-macs``, ``per-params``, ``per-memory``, ``per-latency`` (where latency is
            budgeted): lowest score for what removing it saves.
            ``knapsack``: the highest total score that the budgets permit. Or a ``Sensitivity``: equal loss of accuracy.
        latency: the batch and the threads that a latency budget refers to (``cutback.measure.LatencySetting``); by
            default batch 1 and PyTorch's present number of threads.

    Raises:
        UserMistake: an argument is of another kind than asked for.
        InvalidBudget: a budget or share that cannot be read, or asks for nothing or everything; or patterns of
            ``keep`` and ``ignore`` that contradict each other about one group.
        BudgetUnreachable: no permitted cut meets the budget; carries the lowest reachable figures.
        NothingToPrune: every channel must stay; says why.
        UnknownName: a score or pattern that nothing answers to; lists near misses.
        InvalidScore: scores that are not finite, for instance because the weights are not.
    """

    def make(
        score: str | Score | type[Score],
        budget: Sequence[Budget],
        allocate: str | Allocation | Sensitivity = allocate,
    ) -> Plan:
        return make_plan(
            graph,
            score=score,
            budget=budget,
            keep=keep,
            ignore=ignore,
            round_to=round_to,
            min_channels=min_channels,
            max_removed=max_removed,
            allocate=allocate,
        )

    budgets = parse_budgets(budget)
    if latency is not None:
        _check_kind(latency, LatencySetting, "a latency setting", "pass cutback.measure.LatencySetting(batch=1)")
    if not isinstance(graph, Graph) or all(given.quantity != "latency" for given in budgets):
        return make(score, budgets)
    return plan_within_latency(graph, budgets, latency or LatencySetting(), score, make)


def apply_(
    graph: Graph,
    plan: Plan,
    *,
    optimizers: Optimizer | Iterable[Optimizer] = (),
    copies: nn.Module | Iterable[nn.Module] = (),
    gradients: Gradients = "cut",
    prove: bool = True,
    ignore_unreached: bool = False,
) -> Proof | None:
    """Cut the traced model in place, proven; all or nothing.

    Parameters keep their identity; their gradients, the optimisers' state and the copies are cut along, so that a
    training loop goes on, learning rate schedulers and gradient scalers included. A model traced in its
    ``DistributedDataParallel`` is cut on all ranks together; wrap it anew afterwards with ``rewrap``.

    Args:
        graph: from ``trace``; stale afterwards.
        plan: from ``plan`` on this graph.
        optimizers: the optimiser that holds the model's parameters, or several. State is cut as its parameter is. An
            ``LBFGS`` forgets the pairs of its history that no longer tell of positive curvature.
        copies: a further model of the same architecture, or several: an exponential moving average
            (``AveragedModel``, or anything that holds the copy as ``module``).
        gradients: ``"cut"`` gradients that are present along with their parameters, or ``"clear"`` all of the model's.
        prove: run the proof first (``False`` for timing only).
        ignore_unreached: cut even beside parameters that no captured forward pass has used.

    Returns:
        What the proof found (``None`` without one).

    Raises:
        UserMistake: an argument is of another kind than asked for.
        NotEquivalent: the pruned model would compute something else; names the first module. Nothing was changed.
        StaleGraph: the model has changed since it was traced.
        ArchitectureMismatch: the plan belongs to another architecture.
        UnreachedParameters: see ``ignore_unreached``.
        OptimizerStateError: an optimiser's state cannot be cut.
        DifferentCuts: another rank has another plan (only where the model was traced in ``DistributedDataParallel``).

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> net(torch.ones(1, 3, 8, 8)).sum().backward()
        >>> optimizer.step()
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> plan = cutback.plan(graph, budget="channels=50%")
        >>> proof = cutback.apply_(graph, plan, optimizers=[optimizer], gradients="clear")
        >>> optimizer.state[net[0].weight]["momentum_buffer"].shape, net[0].weight.grad
        (torch.Size([4, 3, 3, 3]), None)
    """
    _check_kind(graph, Graph, "a graph", "pass what cutback.trace(model, example_inputs) returns")
    _check_kind(plan, Plan, "a plan", "pass what cutback.plan(graph, ...) returns")
    if gradients not in get_args(Gradients):
        raise UserMistake(f"gradients is {gradients!r}; pass 'cut' to keep those that stay, or 'clear'")
    return cut_in_place(
        graph,
        plan,
        optimizers=_listed(optimizers, Optimizer, "optimizers"),
        copies=_listed(copies, nn.Module, "copies"),
        gradients=gradients,
        prove=prove,
        ignore_unreached=ignore_unreached,
    )


def apply(
    graph: Graph, plan: Plan, *, form: Form = "module", prove: bool = True, ignore_unreached: bool = False
) -> nn.Module:
    """Return a copy of the traced model that is cut, proven; the model itself is left as it is.

    In graph form that is an ``fx.GraphModule`` with the model's own parameter names, which takes the same arguments and
    returns the same structure. It holds what was recorded, nothing else of the model's code: no hooks and no branches
    that were not taken. It runs on inputs of the traced shapes, at any batch size unless the model's code fixes that.

    Args:
        graph: from ``trace``, with the same ``form``.
        plan: from ``plan`` on this graph.
        form: ``"module"`` for an instance of the model's own class, ``"graph"`` for an ``fx.GraphModule`` in which the
            sizes that the code holds as literals are rewritten.
        prove: run the proof first.
        ignore_unreached: see ``apply_``.

    Raises:
        UserMistake: the graph was traced in another form.
        CutbackError: see ``apply_``.

    Example:
        >>> import torch, cutback
        >>> class Net(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.first, self.last = torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 2, 1)
        ...
        ...     def forward(self, images):
        ...         return self.last(self.first(images).view(-1, 8, 64).relu().view(-1, 8, 8, 8))
        >>> graph = cutback.trace(Net(), torch.zeros(2, 3, 8, 8), form="graph")
        >>> plan = cutback.plan(graph, budget="channels=50%")
        >>> small = cutback.apply(graph, plan, form="graph")
        >>> small.first.weight.shape, small(torch.zeros(5, 3, 8, 8)).shape
        (torch.Size([4, 3, 1, 1]), torch.Size([5, 2, 8, 8]))
    """
    _check_kind(graph, Graph, "a graph", "pass what cutback.trace(model, example_inputs) returns")
    _check_form(form)
    traced = "graph" if isinstance(graph.model, GraphForm) else "module"
    if traced != form:
        raise UserMistake(
            f"the model was traced in {traced} form and is to be cut in {form} form, where other channels can go; "
            f"use cutback.trace(model, example_inputs, form={form!r}) and make the plan from that"
        )
    pruned = independent_copy(graph.model)
    copied = dataclasses.replace(graph, model=pruned, wrappers=())
    apply_(copied, plan, prove=prove, ignore_unreached=ignore_unreached)
    return pruned


def prune(
    model: Model,
    example_inputs: object,
    *,
    macs: str | float | None = None,
    params: str | float | None = None,
    channels: str | float | None = None,
    budget: str | Budget | Sequence[str | Budget] = (),
    score: str | Score | type[Score] = "l1",
    ignore: str | Sequence[str] = (),
    round_to: int = 1,
    allocate: str | Allocation | Sensitivity = "uniform",
) -> Model:
    """Return a pruned, proven copy of a model; the model itself is left as it is.

    Args:
        model: any CNN. Of a wrapped one the copy comes without its wrapper.
        example_inputs: what ``forward`` takes, see ``trace``.
        macs: share of the MACs the result may cost, between 0 and 1 or as written in a budget (``"50%"``, ``"200M"``).
        params: share of the parameters.
        channels: share of each group that stays.
        budget: more budgets, as for ``plan``: ``"peak=8MiB"``.
        score: see ``plan``, like the rest.
        ignore: module path patterns whose outputs stay whole.
        round_to: widths that change become multiples of this.
        allocate: how the cut is shared out.

    Raises:
        CutbackError: see ``trace``, ``plan`` and ``apply_``.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> cutback.prune(net, torch.zeros(1, 3, 8, 8), macs=0.5)[0].out_channels
        4
    """
    given = {"macs": macs, "params": params, "channels": channels}
    shares = [f"{quantity}={_percent(share)}" for quantity, share in given.items() if share is not None]
    budgets = parse_budgets([*shares, *parse_budgets(budget)])
    if not budgets:
        raise InvalidBudget("nothing says how much to remove; give prune a share, for example macs=0.5")
    _check_module(model)
    pruned = independent_copy(unwrapped(model))
    graph = trace(pruned, example_inputs)
    apply_(graph, plan(graph, score=score, budget=budgets, ignore=ignore, round_to=round_to, allocate=allocate))
    return pruned  # type: ignore[return-value] # another class only where the model came in a wrapper


def save(model: nn.Module, plan: Plan, directory: str | Path, *, overwrite: bool = False) -> None:
    """Write a pruned model as ``model.safetensors`` and ``plan.json``: whole or not at all.

    Args:
        model: the model after ``apply_``; it may have been trained since. Wrappers are left out.
        plan: the plan that leads from the dense architecture to it (``first.then(second)`` after two cuts).
        directory: where to; made if absent.
        overwrite: replace a checkpoint that is there.

    Raises:
        ArchitectureMismatch: the model is not what the plan leads to.
        SaveError: the folder exists with other content or cannot be written.
    """
    save_checkpoint(unwrapped(model), plan, Path(directory), overwrite=overwrite)


def load(directory: str | Path, build: Callable[[], Model]) -> Model:
    """Rebuild a pruned model onto a fresh instance of its class, or onto the graph form of one if that was saved.

    Args:
        directory: what ``save`` wrote.
        build: a function that returns the dense model, as it was before pruning.

    Returns:
        The instance, cut and with the saved values, in the mode ``build`` left it in. Of a model in graph form, an
        ``fx.GraphModule``: its graph is recorded again from the instance and must be the one that was saved.

    Raises:
        UserMistake: ``build`` is no function.
        CorruptFile: a file is missing, truncated or altered.
        UnsupportedVersion: written by a newer cutback; or, in graph form, with another torch that records other calls.
        ArchitectureMismatch: ``build`` returns another architecture.
    """
    if isinstance(build, nn.Module) or not callable(build):
        raise UserMistake(
            f"build is a {type(build).__name__}; pass a function that returns a fresh model: build=lambda: MyModel()"
        )
    return load_checkpoint(Path(directory), build)  # type: ignore[return-value] # in graph form another class


def load_plan(directory: str | Path) -> Plan:
    """Return the plan of a checkpoint, to cut its model further: ``load_plan(directory).then(plan)`` is what to save.

    Args:
        directory: what ``save`` wrote.

    Raises:
        CorruptFile: a file is missing, truncated or altered.
        UnsupportedVersion: written by a newer cutback.
    """
    return read_plan(Path(directory))


def _percent(share: str | float) -> str:
    """Write a share as a percentage without binary noise; what is written already stays."""
    if isinstance(share, str):
        return share
    try:
        return f"{share * 100:.12g}%"
    except (TypeError, ValueError) as error:
        raise InvalidBudget(f"cannot read the share {share!r}; write for example macs=0.5 or macs='50%'") from error


def _check_kind(given: object, kind: type, what: str, advice: str) -> None:
    """Refuse an argument of another kind."""
    if not isinstance(given, kind):
        raise UserMistake(f"expected {what}, not {_described(given)}; {advice}")


def _check_form(form: str) -> None:
    """Refuse an unknown form."""
    if form not in get_args(Form):
        raise UserMistake(
            f"form is {form!r}; pass 'module' to keep the model's class, or 'graph' for an fx.GraphModule"
        )


def _check_module(model: object) -> None:
    """Refuse what is no module, and what TorchScript has compiled."""
    _check_kind(model, nn.Module, "a model", "pass an instance of torch.nn.Module")
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    script = next((path for path, module in modules if isinstance(module, torch.jit.ScriptModule)), None)
    if script is not None:
        where = f"its module {script}" if script else "the model"
        raise UserMistake(f"{where} is compiled by TorchScript and cannot be traced; pass the module it was made from")


def _listed(given: object, kind: type[Kind], argument: str) -> list[Kind]:
    """Return one object or several as a list."""
    several = [given] if isinstance(given, kind) else list(given) if isinstance(given, Iterable) else [given]
    result = [one for one in several if isinstance(one, kind)]
    if len(result) < len(several):
        other = next(one for one in several if not isinstance(one, kind))
        raise UserMistake(f"{argument} holds {_described(other)}; pass objects of {kind.__module__}.{kind.__name__}")
    return result


def _described(given: object) -> str:
    """Say what an argument is, in a word or two."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return repr(given) if isinstance(given, str) else type(given).__name__
