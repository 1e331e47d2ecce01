"""How differently a channel answers to different images.

J.-H. Luo, J. Wu, "An Entropy-based Pruning Method for CNN Compression", 2017, section 3.2: each feature map is averaged
to one number an image, a channel's numbers are sorted into bins of equal width, and ``H = -sum_i p_i log p_i``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutback.errors import UserMistake
from cutback.graph.graph import Graph
from cutback.scores.activation import observed, put_together
from cutback.scores.aggregation import check_aggregate
from cutback.scores.catalogue import About, scores
from cutback.scores.data import over_ranks, seen


@scores.register("entropy")
@dataclass(frozen=True)
class Entropy:
    """Entropy of each channel's mean over images, in nats.

    Two passes over the loader: the first finds the range of each channel, the second fills the bins.

    Attributes:
        loader: batches ``(inputs, labels)``, the same ones each time; labels are not used.
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the channels of a unit (see ``aggregation``).
        bins: how many bins; the paper leaves it open.
    """

    about = About("Luo & Wu 2017, section 3.2", needs=("activations",), lowest=("dead",))

    loader: Iterable[object] = field(repr=False)
    aggregate: str = "sum"
    bins: int = 32

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)
        if self.bins < 2:
            raise UserMistake(f"entropy needs at least 2 bins, not {self.bins}")

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, or none the second time, or something else is given as one.
            Ungatable: the channels of some group cannot be observed.
        """
        if not graph.groups:
            return {}
        low: dict[int, Tensor] = {}
        high: dict[int, Tensor] = {}
        counts: dict[int, Tensor] = {}

        def bound(number: int, maps: Tensor) -> None:
            least, most = _pooled(maps).aminmax(dim=0)
            low[number] = torch.minimum(low.get(number, least), least)
            high[number] = torch.maximum(high.get(number, most), most)

        def fill(number: int, maps: Tensor) -> None:
            width = (high[number] - low[number]).clamp_min(torch.finfo(torch.float64).tiny) / self.bins
            bins = ((_pooled(maps) - low[number]) / width).long().clamp(0, self.bins - 1)
            found = torch.zeros(self.bins, maps.shape[1], dtype=torch.float64, device=maps.device)
            found.scatter_add_(0, bins, torch.ones_like(bins, dtype=torch.float64))
            counts[number] = counts[number] + found if number in counts else found

        places, samples, device = observed(graph, self.loader, "map", bound)
        seen(samples, device)
        for number, place in enumerate(places):
            nothing = torch.full((place.group.size,), torch.inf, dtype=torch.float64, device=device)
            low[number] = over_ranks(low.get(number, nothing), "min")
            high[number] = over_ranks(high.get(number, -nothing), "max")
        places, samples, device = observed(graph, self.loader, "map", fill)
        total = seen(samples, device)
        empty = torch.zeros((), dtype=torch.float64, device=device)
        found = (counts.get(n, empty.expand(self.bins, place.group.size)) for n, place in enumerate(places))
        shares = [over_ranks(each.contiguous()) / total for each in found]
        return put_together(graph, places, [torch.special.entr(each).sum(0) for each in shares], self.aggregate)


def _pooled(maps: Tensor) -> Tensor:
    """Return the mean of each map ``(N, C, ...)``, ``(N, C)`` in double precision."""
    return maps[..., None].flatten(2).mean(2, dtype=torch.float64)
