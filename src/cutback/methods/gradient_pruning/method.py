"""The method: hooks on the autograd graph of each pass, which prune gradients on their way back."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from cutback.errors import ArchitectureMismatch, UserMistake
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.graph.unwrap import is_compiled
from cutback.methods.about import About, methods
from cutback.methods.checking import check_known, check_whole
from cutback.methods.gradient_pruning.autograd import Live, live_sites
from cutback.methods.gradient_pruning.rule import calibrated, deviations, pruned, spread
from cutback.methods.gradient_pruning.sites import Site, sites_of
from cutback.methods.gradient_pruning.tally import Tally
from cutback.methods.gradient_pruning.thresholds import Thresholds
from cutback.methods.method import Method

Placement = Literal["block", "convolution", "activation"]
Estimate = Literal["mean-absolute", "standard-deviation"]
Granularity = Literal["site", "channel"]
Gradients = tuple[Tensor | None, ...]


@methods.register("gradient-pruning")
class GradientPruning(Method):
    """Small activation gradients become zero or a threshold by chance; nothing is cut.

    X. Ye et al., "Accelerating CNN Training by Pruning Activation Gradients", ECCV 2020. It makes backward
    products sparse, and training cheaper where zeros are skipped. Gradients stay the same on average.

    It stands beside any other method: both are attached, and both are called. Gradients of passes in train mode are
    pruned, and no others.

    Args:
        graph: the traced model.
        steps: optimiser steps in which gradients are pruned.
        optimizers: see ``Method``; they are left alone.
        copies: see ``Method``; they are left alone.
        rate: share of a normal distribution that lies below the threshold (the paper's ``p``). Fewer entries become
            zero, as some are raised to the threshold: 54 % for 0.9.
        calibrate: let ``rate`` be the share of zeros itself, by a threshold that suits any distribution.
        depth: a threshold is the mean of those that so many passes before asked for; 0 for that of the pass itself.
            Nothing is pruned before there are as many.
        ramp: so many passes over which the rate rises from zero.
        placement: ``block``: at the output of convolutions, or behind their ReLU where no norm stands between.
            ``convolution``: always at their output. ``activation``: always behind the ReLU, a control.
        estimate: how the spread of gradients is found: ``mean-absolute`` or ``standard-deviation``.
        granularity: one threshold for each ``site`` or for each ``channel`` of it.
        log: count zeros, for ``records``; that costs some passes over the gradients.
        seed: of the draws; each process adds its rank.

    Raises:
        UserMistake: a setting is out of range, or the model is compiled or in ``DataParallel``.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> graph = cutback.trace(net, torch.zeros(2, 3, 8, 8))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        >>> with GradientPruning(graph, steps=3, rate=0.99, depth=1) as method:
        ...     while not method.finished:
        ...         optimizer.zero_grad()
        ...         net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        ...         method.after_backward()
        ...         method.before_step()
        ...         optimizer.step()
        ...         cut = method.after_step()
        >>> method.records()["density"] < 0.6
        True
    """

    about: ClassVar[About] = About(
        title="Accelerating CNN Training by Pruning Activation Gradients",
        authors="Ye et al.",
        year=2020,
        where="ECCV 2020, arXiv:1908.00173",
        cuts=False,
        budget="none",
    )

    _rule: ClassVar[Callable[[Tensor, Tensor, Tensor], Tensor]] = staticmethod(pruned)

    def __init__(  # noqa: PLR0913 (settings)
        self,
        graph: Graph,
        *,
        steps: int,
        optimizers: Optimizer | Iterable[Optimizer] = (),
        copies: nn.Module | Iterable[nn.Module] = (),
        rate: float = 0.9,
        calibrate: bool = False,
        depth: int = 4,
        ramp: int = 0,
        placement: Placement = "block",
        estimate: Estimate = "mean-absolute",
        granularity: Granularity = "site",
        log: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(graph, optimizers=optimizers, copies=copies)
        check_whole("gradient-pruning", {"steps": (steps, 1), "depth": (depth, 0), "ramp": (ramp, 0)})
        if not 0 < rate < 1:
            raise UserMistake(f"rate={rate!r} of gradient-pruning must lie between 0 and 1; 0.9 prunes as published")
        choices = {"placement": (placement, Placement), "estimate": (estimate, Estimate)}
        check_known("gradient-pruning", {**choices, "granularity": (granularity, Granularity)})
        if calibrate and granularity == "channel":
            raise UserMistake("a calibrated threshold is one for each site; leave out calibrate or granularity=channel")
        if any(is_compiled(wrapper) or isinstance(wrapper, DataParallel) for wrapper in graph.wrappers):
            raise UserMistake(
                "gradient-pruning needs the autograd graph of the model itself, which torch.compile and DataParallel "
                "hide; train it as it is, or in DistributedDataParallel"
            )
        self.steps, self.rate, self.calibrate, self.ramp = steps, rate, calibrate, ramp
        self.placement, self.estimate, self.granularity, self.log = placement, estimate, granularity, log
        self.depth, self.seed = depth, seed
        self._done = self._passes = 0
        self._queues: dict[str, Thresholds] = {}
        self._generators: dict[str, torch.Generator] = {}
        self._tally = Tally()
        self._sites: list[Site] = []
        self._handle: RemovableHandle | None = None
        self._seen = False

    @property
    def finished(self) -> bool:
        """Whether gradients have been pruned in as many steps as asked for."""
        return self._done >= self.steps

    def attach(self) -> None:
        """Watch the passes of the model.

        Raises:
            UserMistake: the model has no convolution that could be pruned.
            ArchitectureMismatch: the state that was loaded has other convolutions.
        """
        if self.finished:
            return
        parameters = parameters_by_name(self.graph.model)
        self._sites = sites_of(self.graph, self.placement)
        if not any(parameters[site.weight].requires_grad for site in self._sites):
            raise UserMistake(
                f"no convolution of {type(self.graph.model).__name__} has a weight that is trained, so there is no "
                "gradient to prune"
            )
        names = {site.name for site in self._sites}
        unknown = self._queues.keys() - names
        if unknown:
            raise ArchitectureMismatch(
                f"the state of gradient-pruning has thresholds of {', '.join(sorted(unknown))}, which this model does "
                "not have; load it with the model and the placement it was saved with"
            )
        self._queues = {name: self._queues.get(name) or Thresholds(self.depth) for name in sorted(names)}
        self._handle = self.graph.model.register_forward_hook(self._watch())

    def detach(self) -> None:
        """Watch no more; passes that are under way are not pruned any more either."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def after_backward(self) -> None:
        """Count the pass.

        Raises:
            UserMistake: no gradient of the traced model has come by.
        """
        if self._handle is None:
            return
        if not self._seen:
            raise UserMistake(
                "no gradient of a convolution has passed since the last call: call the traced model itself, in train "
                "mode, not compiled, and without reentrant checkpoints around its convolutions"
            )
        self._seen = False
        self._passes += 1

    def after_step(self) -> bool:
        """Count the step, and let go of the model after the last."""
        if not self.finished:
            self._done += 1
        if self.finished:
            self.detach()
        return False

    def records(self) -> dict[str, object]:
        """Return what the last pass gave at each site and all passes in sum, see ``Tally``; empty without ``log``."""
        return self._tally.records()

    def state_dict(self) -> dict[str, Any]:
        """Return the thresholds, the state of the draws, and what has been counted."""
        return {
            **super().state_dict(),
            "done": self._done,
            "passes": self._passes,
            "thresholds": {name: queue.state() for name, queue in self._queues.items()},
            "generators": {device: own.get_state() for device, own in self._generators.items()},
            "macs": self._tally.macs,
            "skipped": self._tally.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state from before, see ``Method``.

        Raises:
            ArchitectureMismatch: the model is another one than the state belongs to.
        """
        super().load_state_dict(state)
        self._done, self._passes = int(state["done"]), int(state["passes"])
        self._queues = {name: Thresholds(self.depth) for name in state["thresholds"]}
        for name, held in state["thresholds"].items():
            self._queues[name].load(held)
        for device, own in state["generators"].items():
            self._generator(torch.device(device)).set_state(own.cpu())
        self._tally = Tally(int(state["macs"]), int(state["skipped"]))

    def _watch(self) -> Callable[[nn.Module, object, object], None]:
        """Return the hook on the model's forward: a plain function, which a copy of the model may share."""
        model = self.graph.model

        def noted(module: nn.Module, _arguments: object, output: object) -> None:
            if module is not model or not module.training or not torch.is_grad_enabled():
                return
            weights = {id(parameter): name for name, parameter in parameters_by_name(model).items()}
            for live in live_sites(output, weights, self._sites):
                self._hook(live)

        return noted

    def _hook(self, live: Live) -> None:
        """Let the gradient that arrives at a site be pruned, and that which its convolution uses be counted.

        What is hooked to a node must not hold a node: neither would ever be freed.
        """
        site, spatial, each = live.site, live.weight.dim() - 2, live.weight[0].numel() * live.products

        def prune(gradients: Gradients) -> Gradients | None:
            if self._handle is None or gradients[0] is None:
                return None
            return (self._pruned(site, gradients[0], spatial), *gradients[1:])

        def count(gradients: Gradients) -> None:
            self._seen = self._seen or self._handle is not None
            if self.log and self._handle is not None and gradients[0] is not None:
                self._tally.note_used(site.name, gradients[0], each)

        live.pruned.register_prehook(prune)
        live.convolution.register_prehook(count)

    def _pruned(self, site: Site, gradient: Tensor, spatial: int) -> Tensor:
        """Return a site's gradient, pruned.

        Args:
            site: the site.
            gradient: ``(N, C, ...)``.
            spatial: how many dimensions follow the channels.
        """
        generator = self._generator(gradient.device)
        rate = self.rate * min(1.0, (self._passes + 1) / self.ramp) if self.ramp else self.rate
        with torch.no_grad():
            if self.calibrate:
                determined = calibrated(gradient, rate, generator)
            else:
                channel = gradient.dim() - spatial - 1 if self.granularity == "channel" else None
                determined = deviations(rate) * spread(gradient, self.estimate, channel)
            threshold = self._queues[site.name].next(determined)
            result = gradient
            if threshold is not None:
                kind = torch.float32 if gradient.dtype in (torch.float16, torch.bfloat16) else gradient.dtype
                draws = torch.empty_like(gradient, dtype=kind).uniform_(generator=generator)
                result = self._rule(gradient, threshold, draws)
            if self.log:
                self._tally.note_pruned(site.name, gradient, result, threshold, determined)
        return result

    def _generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of the draws on a device."""
        if str(device) not in self._generators:
            together = distributed.is_available() and distributed.is_initialized()
            rank = distributed.get_rank() if together else 0
            self._generators[str(device)] = torch.Generator(device).manual_seed(self.seed + rank)
        return self._generators[str(device)]
