"""Importance scores, one a file: a tensor ``(units,)`` for each group, higher meaning more important.

A score is a name (``"l1"``, or ``"l1:leader"`` with another aggregate over coupled slices), an object, or any function
of a graph. ``describe(name)`` tells its source and what it needs; a score that needs data is made with a loader.

Example:
    >>> import torch, cutback
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
    >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
    >>> plan = cutback.plan(graph, score=cutback.scores.L1(aggregate="leader"), budget="channels=50%")
    >>> cutback.scores.describe("fpgm").source
    'He 2019, section 3.3'
"""

from cutback.scores.activation_statistics import MeanL1, MeanL2, MeanMean, MeanStd, VarL2
from cutback.scores.apoz import APoZ
from cutback.scores.batch_norm import NormScale
from cutback.scores.catalogue import About, Description, Score, about, describe, make_score, score_groups, scores
from cutback.scores.entropy import Entropy
from cutback.scores.fisher import Fisher, GroupFisher
from cutback.scores.grasp import GraSP
from cutback.scores.group_norm import GroupNorm
from cutback.scores.hrank import HRank
from cutback.scores.lamp import LAMP
from cutback.scores.norm import L1, L2, Largest, LInf
from cutback.scores.oracle import Oracle
from cutback.scores.random import Random
from cutback.scores.similarity import CosineRedundancy, GeometricMedian
from cutback.scores.snip import SNIP
from cutback.scores.taylor import Taylor, TaylorExample
from cutback.scores.taylor_second import TaylorSecond
from cutback.scores.taylor_weight import TaylorWeight

__all__ = [
    "L1",
    "L2",
    "LAMP",
    "SNIP",
    "APoZ",
    "About",
    "CosineRedundancy",
    "Description",
    "Entropy",
    "Fisher",
    "GeometricMedian",
    "GraSP",
    "GroupFisher",
    "GroupNorm",
    "HRank",
    "LInf",
    "Largest",
    "MeanL1",
    "MeanL2",
    "MeanMean",
    "MeanStd",
    "NormScale",
    "Oracle",
    "Random",
    "Score",
    "Taylor",
    "TaylorExample",
    "TaylorSecond",
    "TaylorWeight",
    "VarL2",
    "about",
    "describe",
    "make_score",
    "score_groups",
    "scores",
]
