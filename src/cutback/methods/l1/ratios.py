"""How much of each layer goes: by hand, or by what a sensitivity scan finds for each stage.

H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2: all layers of a stage (of one map size)
lose the same ratio ``p``, and ``floor(C (1 - p))`` filters of ``C`` stay; layers that are sensitive stay whole.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from cutback.errors import UserMistake
from cutback.graph.graph import Graph
from cutback.planning.patterns import matching, nameable, output_paths
from cutback.planning.sensitivity import Sensitivity, stages
from cutback.planning.shares import Share


def read_ratios(written: str | Mapping[str, Share]) -> dict[str, Fraction]:
    """Read the shares that are removed, by pattern.

    Args:
        written: ``"layer1.*=60%, layer2.*=0.3"`` or the same as a mapping.

    Raises:
        UserMistake: it cannot be read, or a share is not below one.

    Example:
        >>> read_ratios("layer1.*=60%, layer2.*=0.3")
        {'layer1.*': Fraction(3, 5), 'layer2.*': Fraction(3, 10)}
    """
    if isinstance(written, str):
        parts = [part.rpartition("=") for part in written.split(",") if part.strip()]
        given: object = {pattern.strip(): share for pattern, _, share in parts}
    else:
        given = written
    if not isinstance(given, Mapping) or not given:
        raise UserMistake(f"cannot read ratios={written!r}; write for example ratios='layer1.*=60%, layer2.*=30%'")
    return {pattern: _share(pattern, share) for pattern, share in given.items()}


def read_patterns(written: str | Sequence[str]) -> tuple[str, ...]:
    """Read patterns of layers: ``"stem, layer1.0.*"`` or a sequence.

    Example:
        >>> read_patterns("stem, layer1.0.*")
        ('stem', 'layer1.0.*')
    """
    parts = written.split(",") if isinstance(written, str) else written
    return tuple(part.strip() for part in parts if part.strip())


def skipped_by_hand(graph: Graph, skip: Sequence[str]) -> list[str]:
    """Return the names of the groups that patterns leave whole; a pattern may name a layer or a module around it.

    Raises:
        UnknownName: a pattern matches no module.
    """
    named = set().union(*(matching(pattern, nameable(graph), "skip") for pattern in skip))
    return [group.name for group in graph.groups if named & output_paths(group)]


def ratios_by_hand(graph: Graph, ratios: Mapping[str, Fraction], whole: Mapping[str, str]) -> dict[str, Fraction]:
    """Return the ratio of each group that a pattern names.

    Args:
        graph: the traced model.
        ratios: shares that are removed, by pattern of the layers that make channels.
        whole: groups that stay whole, with the reason of each.

    Raises:
        UnknownName: a pattern matches no layer that can be cut.
        UserMistake: patterns contradict each other, or one names layers only that stay whole.
    """
    layers = [layer for group in graph.groups for layer in group.layers]
    found: dict[str, tuple[str, Fraction]] = {}
    for pattern, ratio in ratios.items():
        named = set(matching(pattern, layers, "ratios"))
        groups = [group.name for group in graph.groups if named & set(group.layers)]
        free = [name for name in groups if name not in whole]
        if not free:
            raise UserMistake(f"ratios pattern {pattern!r} names what stays whole: {whole[groups[0]]}; leave it out")
        for name in free:
            other, said = found.setdefault(name, (pattern, ratio))
            if said != ratio:
                raise UserMistake(
                    f"ratios patterns {other!r} and {pattern!r} remove different shares of group {name}; write equal "
                    "shares, or patterns that do not overlap"
                )
    return {name: ratio for name, (_, ratio) in found.items()}


def widths_of(graph: Graph, ratios: Mapping[str, Fraction]) -> dict[str, int]:
    """Return how many units of each group stay: ``floor(C (1 - p))``, in whole numbers, at least one.

    Of a group in a balance, at least as many as that permits.

    Args:
        graph: the traced model.
        ratios: the share of each named group that goes.
    """
    least = [1] * len(graph.groups)
    for system in graph.systems:
        owner = np.array([cell.group for cell in system.cells])
        for number in system.groups:
            least[number] = int(system.levels[-1][owner == number].sum())
    return {
        group.name: max(int(group.units * (1 - ratios[group.name])), lowest)
        for group, lowest in zip(graph.groups, least, strict=True)
        if group.name in ratios
    }


def by_stage(graph: Graph, scan: Sensitivity, skip: Sequence[str]) -> Sensitivity:
    """Return curves by which all groups of a stage lose alike: each that of the stage's most sensitive group.

    Args:
        graph: the traced model.
        scan: the curve of each group.
        skip: groups left whole, which do not count.
    """
    curves: dict[str, Mapping[float, float]] = {}
    for groups in stages(graph).values():
        counted = [name for name in groups if name in scan.curves and name not in skip]
        shares = sorted({share for name in counted for share in scan.curves[name]})
        worst = {share: scan.dense - max(scan.loss(name, share) for name in counted) for share in shares}
        curves |= dict.fromkeys(counted, worst)
    return Sensitivity(scan.dense, curves, scan.score)


def _share(pattern: str, written: object) -> Fraction:
    """Read one share that is removed."""
    text = str(written).strip() if isinstance(written, str | int | float) and not isinstance(written, bool) else ""
    try:
        share = Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text).limit_denominator(10**9)
    except (ValueError, ZeroDivisionError):
        share = Fraction(1)
    if not pattern or not 0 <= share < 1:
        raise UserMistake(
            f"cannot read the ratio {pattern}={written!r}: it is the share of a layer's filters that goes, from 0 % to "
            "below 100 %; write for example ratios='layer1.*=60%'"
        )
    return share
