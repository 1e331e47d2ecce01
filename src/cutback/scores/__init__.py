"""Importance scores, one a file: a tensor ``(units,)`` for each group, higher meaning more important."""

from cutback.scores.catalogue import Score, score_groups, scores
from cutback.scores.norm import L1, L2
from cutback.scores.random import Random

__all__ = ["L1", "L2", "Random", "Score", "score_groups", "scores"]
