"""Filters of one function: k-means on their pictures, with a number of clusters that the pictures suggest."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]
CANDIDATES, WIDE, PROJECTED = 12, 3000, 256
"""So many numbers of clusters are tried; vectors longer than the second are projected to so many dimensions."""


@dataclass(frozen=True)
class Clustering:
    """How filters are put together.

    Attributes:
        count: ``silhouette``: the number of clusters whose members are nearest to their own; ``share``: a fixed share.
        share: clusters for each filter, where the silhouette does not tell.
        lead: by so much the best silhouette must be above that of two clusters to be trusted.
        alike: a cluster whose members correlate less than that on average is none.
        restarts: of k-means.
        iterations: of k-means.
        seed: of its draws.
    """

    count: str = "silhouette"
    share: float = 0.5
    lead: float = 0.1
    alike: float = 0.3
    restarts: int = 10
    iterations: int = 50
    seed: int = 0


def clustered(vectors: Vectors, how: Clustering) -> Labels:
    """Return the cluster of each filter, ``(filters,)``, numbered from 0 in the order of their first members.

    Args:
        vectors: of length one and mean zero, ``(filters, pixels)``.
        how: how they are put together.
    """
    generator = np.random.default_rng(how.seed)
    points = vectors
    if vectors.shape[1] > WIDE:
        points = vectors @ generator.normal(size=(vectors.shape[1], PROJECTED)) / np.sqrt(PROJECTED)
    labels = _suggested(points, how, generator)
    return renumbered(_without_loose(labels, vectors @ vectors.T, how.alike))


def k_means(points: Vectors, count: int, how: Clustering, generator: np.random.Generator) -> Labels:
    """Return the cluster of each point, ``(points,)``: of several starts (k-means++) the one with the least inertia."""
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(how.restarts):
        labels, inertia = _lloyd(points, _far_apart(points, count, generator), how.iterations)
        if inertia < least:
            best, least = labels, inertia
    return best


def silhouette(points: Vectors, labels: Labels) -> float:
    """Return how much nearer points are to their own cluster than to the next, -1 to 1, on average; alone is 0."""
    distances = np.sqrt(_squares(points, points))
    numbers = np.unique(labels)
    sums = np.stack([distances[:, labels == number].sum(axis=1) for number in numbers], axis=1)
    sizes = np.array([(labels == number).sum() for number in numbers])
    own = np.searchsorted(numbers, labels)
    rows = np.arange(len(points))
    inside = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    sound = (sizes[own] > 1) & (larger > 0) & np.isfinite(outside)
    return float(np.where(sound, (outside - inside) / np.where(sound, larger, 1), 0.0).mean())


def renumbered(labels: Labels) -> Labels:
    """Return labels numbered in the order of their first members."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _suggested(points: Vectors, how: Clustering, generator: np.random.Generator) -> Labels:
    """Return clusters whose number the silhouette tells, or the share."""
    filters = len(points)
    fixed = max(1, ceil(how.share * filters))
    if how.count == "silhouette" and filters >= 4:
        scanned = np.unique(np.round(np.geomspace(2, filters - 2, CANDIDATES)).astype(int))
        numbers = range(2, filters - 1) if filters - 3 <= CANDIDATES else scanned.tolist()
        found = {number: k_means(points, number, how, generator) for number in numbers}
        scores = {number: silhouette(points, labels) for number, labels in found.items()}
        best = max(scores, key=lambda number: scores[number])
        if best > 2 and scores[best] >= scores[2] + how.lead:
            return found[best]
    return k_means(points, fixed, how, generator)


def _without_loose(labels: Labels, correlation: Vectors, alike: float) -> Labels:
    """Return labels in which members of clusters that are not alike stand alone."""
    result, fresh = labels.copy(), labels.max(initial=0) + 1
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number)
        if len(members) > 1 and correlation[np.ix_(members, members)][np.triu_indices(len(members), 1)].mean() < alike:
            result[members] = fresh + np.arange(len(members))
            fresh += len(members)
    return result


def _far_apart(points: Vectors, count: int, generator: np.random.Generator) -> Vectors:
    """Draw centres: each point with a chance that grows with its squared distance from those drawn before."""
    chosen = [int(generator.integers(len(points)))]
    nearest = _squares(points, points[chosen])[:, 0]
    while len(chosen) < count:
        total = nearest.sum()
        chance = nearest / total if total > 0 else None
        chosen.append(int(generator.choice(len(points), p=chance)))
        nearest = np.minimum(nearest, _squares(points, points[chosen[-1:]])[:, 0])
    return points[chosen]


def _lloyd(points: Vectors, centres: Vectors, iterations: int) -> tuple[Labels, float]:
    """Return clusters around centres that move to the mean of theirs, and the sum of squared distances."""
    labels = np.full(len(points), -1, dtype=np.int64)
    for _ in range(iterations):
        distances = _squares(points, centres)
        moved = distances.argmin(axis=1)
        if (moved == labels).all():
            break
        labels = moved
        for number in range(len(centres)):
            members = points[labels == number]
            # A centre that has lost all its points goes to the one that is farthest from its own.
            centres[number] = members.mean(axis=0) if len(members) else points[distances.min(axis=1).argmax()]
    return labels, float(_squares(points, centres)[np.arange(len(points)), labels].sum())


def _squares(points: Vectors, others: Vectors) -> Vectors:
    """Return squared distances, ``(points, others)``."""
    found = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * points @ others.T
    return np.maximum(found, 0.0)
