"""Each block alone, and 120 random networks of them, are cut and proven; few may be refused.

The bound of 2 % is that of ``benchmarks/zoo/random_suite.py``, which judges thousands; a shard here may refuse one.
"""

import pytest
from hypothesis import given, seed, settings

from tests.graph.blocks import BLOCKS, FAMILIES
from tests.graph.judging import PROVEN, SILENT, Verdict, judge
from tests.graph.random_networks import Spec, specs

SHARDS, EXAMPLES = 8, 15
MOST_REFUSED = 0


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_cut_of_random_networks_is_proven(shard: int) -> None:
    judged: dict[Spec, Verdict] = {}

    @seed(shard)
    @settings(max_examples=EXAMPLES, derandomize=False, database=None, deadline=None)
    @given(specs)
    def one(spec: Spec) -> None:
        judged[spec] = judge(spec)

    one()
    assert len(judged) >= 0.9 * EXAMPLES
    others = {spec: verdict for spec, verdict in judged.items() if verdict.outcome != PROVEN}
    assert not [spec for spec, verdict in others.items() if verdict.outcome == SILENT], others
    assert len(others) <= MOST_REFUSED, others


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_each_block_alone_is_cut_and_proven(name: str) -> None:
    verdict = judge(Spec((name, "plain")), plant=True)
    assert verdict.outcome == PROVEN, verdict.reason


@pytest.mark.parametrize(
    "spec",
    [
        Spec(("unflatten", "unflatten"), head="flatten", share=30),
        Spec(("reordered", "roll", "layer norm, permuted", "padded"), head="view", share=30, seed=242),
        *(Spec((name,), share=1, seed=3) for name in ("padded", "repeat", "shuffle, module", "unflatten")),
    ],
)
def test_layers_may_come_down_to_one_channel(spec: Spec) -> None:
    """Its labels are then all one, as where there are no channels; calls still do what they did in the whole model."""
    verdict = judge(spec)
    assert verdict.outcome == PROVEN, verdict.reason


def test_every_family_has_a_block() -> None:
    assert {entry.family for entry in BLOCKS.values()} == set(FAMILIES)
