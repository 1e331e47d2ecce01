"""Cuts of 300 random networks at 30, 50 and 70 % of channels are proven; at most 2 % may be refused."""

import pytest
import torch
from hypothesis import given, seed, settings

import cutback
from cutback.errors import CutbackError
from cutback.surgery.verify import prove
from tests.graph.random_networks import BLOCKS, RandomNetwork, networks

SHARDS, EXAMPLES = 6, 50


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_cut_of_random_networks_is_proven(shard: int) -> None:
    judged, refused = [], []

    @seed(shard)
    @settings(max_examples=EXAMPLES, derandomize=False, database=None)
    @given(networks)
    def judge(network: RandomNetwork) -> None:
        judged.append(network)
        graph = cutback.trace(network, torch.randn(2, 3, 8, 8))
        try:
            for share in (70, 50, 30):
                plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(seed=shard))
                prove(graph, plan)
        except CutbackError as error:
            refused.append(f"{network}: {error}")

    judge()
    assert len(judged) >= EXAMPLES
    assert len(refused) <= 0.02 * EXAMPLES, refused[0]


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_each_block_alone_is_cut_and_proven(name: str) -> None:
    torch.manual_seed(0)
    graph = cutback.trace(RandomNetwork([name, "plain"], "mean"), torch.randn(2, 3, 8, 8))
    plan = cutback.plan(graph, budget="channels=50%")
    prove(graph, plan)
    inside = [group.name for group in graph.groups if group.name.startswith(("blocks.0", "stem"))]
    assert inside, str(graph)
