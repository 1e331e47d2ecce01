"""Attention in every usual spelling: head width and embedding shrink, the proof holds, wrong cuts are caught."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cutback
from cutback.errors import NotEquivalent
from cutback.graph.graph import Graph
from cutback.planning.plan import Kept, Plan
from cutback.surgery.verify import prove
from tests.graph.rules.attention_networks import (
    CHANNELS,
    FUSED,
    HEADS,
    PRODUCTS,
    SEQUENCE,
    WIDTH,
    EqualWidthAttention,
    FusedAttention,
    JoinedBias,
    SplitAttention,
    Transformer,
    cosine_attention,
    implicit_attention,
    matmul_attention,
)


def tokens() -> Tensor:
    return torch.randn(SEQUENCE, generator=torch.Generator().manual_seed(1))


def traced(*attentions: nn.Module) -> Graph:
    torch.manual_seed(0)
    return cutback.trace(Transformer(*attentions), tokens())


def halved(graph: Graph) -> Plan:
    return cutback.plan(graph, score="random", budget="channels=50%")


def assert_shrinks(graph: Graph, name: str, *, width: int = WIDTH, channels: int = CHANNELS) -> None:
    """Every head and the embedding lose half, in the projections and in what they read."""
    for share in (70, 50, 30):
        plan = cutback.plan(graph, score="random", budget=f"channels={share}%")
        proof = prove(graph, plan)
        assert proof.modes == ("eval", "train")
        kept = plan.slices[f"{name}.weight"][0]
        left = math.floor(width * share / 100)
        assert len(kept.indices) == kept.total * left // width
        assert len(plan.slices[f"{name}.weight"][1].indices) == math.floor(channels * share / 100)
        for start in range(0, kept.total, width):
            assert sum(start <= index < start + width for index in kept.indices) == left


@pytest.mark.parametrize("name", sorted(PRODUCTS))
def test_head_width_and_embedding_shrink_in_every_spelling_of_the_products(name: str) -> None:
    assert_shrinks(traced(FusedAttention(product=PRODUCTS[name])), "attentions.0.qkv")


@pytest.mark.parametrize("name", sorted(FUSED))
def test_query_key_and_value_are_taken_apart_in_every_way(name: str) -> None:
    assert_shrinks(traced(FusedAttention(FUSED[name], implicit_attention)), "attentions.0.qkv")


def test_separate_projections_couple_query_and_key_but_not_the_value() -> None:
    graph = traced(SplitAttention(normalised=True))
    groups = {layer: group.name for group in graph.groups for layer in group.layers}
    assert groups["attentions.0.q"] == groups["attentions.0.k"] != groups["attentions.0.v"]
    assert_shrinks(graph, "attentions.0.q")


def query_units(graph: Graph) -> list[list[int]]:
    """Return the rows of ``qkv`` that each unit of the query holds."""
    slices = [(slot, rows) for group in graph.groups for slot, rows in group.slices.items()]
    found = [rows.tolist() for slot, rows in slices if (slot.state, slot.dimension) == ("attentions.0.qkv.weight", 0)]
    return [rows for units in found for rows in units if rows[0] < HEADS * WIDTH]


def test_the_norm_of_a_head_leaves_its_channels_free_and_that_over_the_heads_does_not() -> None:
    def over_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return matmul_attention(q / q.norm(dim=1, keepdim=True), k, v)

    size = HEADS * WIDTH
    free = query_units(traced(FusedAttention(product=cosine_attention)))
    assert free == [[row, size + row] for row in range(size)]  # a channel of the query and one of the key
    assert query_units(traced(FusedAttention(product=over_heads))) == []


def test_class_token_and_position_embedding_follow_the_embedding() -> None:
    graph = traced(FusedAttention())
    plan = halved(graph)
    assert len(plan.slices["cls"][2].indices) == len(plan.slices["position"][2].indices) == CHANNELS // 2


def test_the_implicit_scale_is_made_up_for_in_the_query_alone() -> None:
    graph = traced(FusedAttention(product=implicit_attention))
    plan = halved(graph)
    rows = tuple(range(HEADS * WIDTH))
    for state in ("weight", "bias"):
        (scaled,) = plan.scales[f"attentions.0.qkv.{state}"]
        assert scaled.indices == rows
        assert scaled.factor == pytest.approx(math.sqrt(1 / 2))
    assert set(plan.scales) == {"attentions.0.qkv.weight", "attentions.0.qkv.bias"}


def test_the_implicit_scale_is_made_up_for_in_the_scale_of_a_norm() -> None:
    graph = traced(SplitAttention(implicit_attention, normalised=True))
    plan = halved(graph)
    prove(graph, plan)
    assert set(plan.scales) == {"attentions.0.q_norm.weight", "attentions.0.q_norm.bias"}


def test_the_pruned_attention_equals_the_original_on_zeroed_channels() -> None:
    """By hand: zero the removed rows of query, key and value, and the columns that read removed channels."""
    torch.manual_seed(0)
    attention = FusedAttention(product=implicit_attention).eval()
    x = torch.randn(2, 6, CHANNELS)
    wrapped = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), attention)
    graph = cutback.trace(wrapped, x)
    plan = halved(graph)
    silent, pruned = copy.deepcopy(wrapped), copy.deepcopy(wrapped)
    with torch.no_grad():
        for name, parameter in silent.named_parameters():
            for dimension, kept in plan.slices.get(name, {}).items():
                gone = [index for index in range(kept.total) if index not in kept.indices]
                parameter.index_fill_(dimension, torch.tensor(gone), 0)
    graph = cutback.trace(pruned, x)
    cutback.apply_(graph, plan)
    assert pruned[1].qkv.out_features == 3 * HEADS * WIDTH // 2
    assert torch.allclose(pruned(x), silent(x), atol=1e-5)


def test_a_missing_or_wrong_scale_is_caught() -> None:
    graph = traced(FusedAttention(product=implicit_attention))
    plan = halved(graph)
    prove(graph, plan)
    with pytest.raises(NotEquivalent):
        prove(graph, dataclasses.replace(plan, scales={}))
    wrong = {
        name: tuple(dataclasses.replace(scaled, factor=scaled.factor * 1.01) for scaled in found)
        for name, found in plan.scales.items()
    }
    with pytest.raises(NotEquivalent):
        prove(graph, dataclasses.replace(plan, scales=wrong))


def test_a_wrong_row_of_the_key_is_caught() -> None:
    graph = traced(FusedAttention())
    plan = halved(graph)
    slices = {name: dict(found) for name, found in plan.slices.items()}
    kept = slices["attentions.0.qkv.weight"][0]
    key = [index for index in kept.indices if HEADS * WIDTH <= index < 2 * HEADS * WIDTH]
    other = next(index for index in range(HEADS * WIDTH, 2 * HEADS * WIDTH) if index not in kept.indices)
    indices = tuple(other if index == key[0] else index for index in kept.indices)
    for state in ("weight", "bias"):
        slices[f"attentions.0.qkv.{state}"][0] = Kept(kept.total, indices)
    with pytest.raises(NotEquivalent):
        prove(graph, dataclasses.replace(plan, slices=slices))


def test_scales_survive_json_and_compose() -> None:
    model = Transformer(FusedAttention(product=implicit_attention)).eval()
    dense, plans = copy.deepcopy(model), []
    for _ in range(2):
        graph = cutback.trace(model, tokens())
        plans.append(halved(graph))
        cutback.apply_(graph, plans[-1])
    both = Plan.from_json(plans[0].then(plans[1]).to_json())
    assert both == plans[0].then(plans[1])
    cutback.apply_(cutback.trace(dense, tokens()), both)
    assert dense.attentions[0].qkv.out_features == 3 * HEADS * WIDTH // 4
    assert torch.allclose(dense(tokens()), model(tokens()), atol=1e-6)


def test_gradients_of_multiplied_rows_are_divided() -> None:
    model = Transformer(FusedAttention(product=implicit_attention))
    graph = cutback.trace(model, tokens())
    plan = halved(graph)
    model(tokens()).square().sum().backward()
    before = model.attentions[0].qkv.bias.grad.clone()
    kept = plan.slices["attentions.0.qkv.bias"][0].indices
    cutback.apply_(graph, plan)
    gradient = model.attentions[0].qkv.bias.grad
    query = sum(index < HEADS * WIDTH for index in kept)
    assert torch.allclose(gradient[:query], before[list(kept)][:query] * math.sqrt(2))
    assert torch.equal(gradient[query:], before[list(kept)][query:])


def divided_by_a_tensor(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / torch.tensor(float(k.shape[-1])).sqrt()).softmax(-1) @ v


def divided_and_shown(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.mT
    return (scores / math.sqrt(k.shape[-1])).softmax(-1) @ v + scores.tanh() @ v


@pytest.mark.parametrize("product", [divided_by_a_tensor, divided_and_shown])
def test_scores_whose_divisor_nothing_makes_up_for_keep_the_head_width(product) -> None:
    graph = traced(SplitAttention(product))
    kept = {layer.layer for layer in graph.kept}
    assert kept == {"attentions.0.q", "attentions.0.k", "head"}
    plan = halved(graph)
    prove(graph, plan)
    assert len(plan.slices["attentions.0.v.weight"][0].indices) == HEADS * WIDTH // 2


def test_two_scales_of_the_same_query_are_made_up_for_once() -> None:
    def twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (((q * 0.7) @ k.mT) * k.size(-1) ** -0.5).softmax(-1) @ v

    graph = traced(SplitAttention(twice))
    plan = halved(graph)
    prove(graph, plan)
    factors = {round(scaled.factor, 12) for found in plan.scales.values() for scaled in found}
    assert factors == {round(math.sqrt(1 / 2), 12)}


class SharedQuery(SplitAttention):
    """Query and key are one tensor: multiplying it would count twice."""

    def forward(self, x: Tensor) -> Tensor:
        q, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.v))
        return self.proj(F.scaled_dot_product_attention(q, q, v).transpose(1, 2).flatten(2))


class Crooked(SplitAttention):
    """Query and key pass a function that is not linear."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.proj(F.scaled_dot_product_attention(q.relu(), k.sigmoid(), v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", [SharedQuery, Crooked])
def test_a_width_that_nothing_makes_up_for_stays_with_a_reason(kind: type[SplitAttention]) -> None:
    graph = traced(kind(implicit_attention))
    kept = {layer.layer: layer for layer in graph.kept}
    assert kept["attentions.0.q"].channels == HEADS * WIDTH
    assert "make up for" in kept["attentions.0.q"].reasons[0].reason
    plan = halved(graph)
    prove(graph, plan)
    assert len(plan.slices["attentions.0.v.weight"][0].indices) == HEADS * WIDTH // 2


class KeyedScale(SplitAttention):
    """The query is rectified, the key is not: the key makes up for the scale."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.proj(F.scaled_dot_product_attention(q.relu(), k, v).transpose(1, 2).flatten(2))


def test_the_key_makes_up_for_the_scale_where_the_query_cannot() -> None:
    graph = traced(KeyedScale(implicit_attention))
    plan = halved(graph)
    prove(graph, plan)
    assert set(plan.scales) == {"attentions.0.k.weight", "attentions.0.k.bias"}


def test_a_product_that_needs_two_labels_an_element_is_refused_with_its_reason() -> None:
    class Outer(SplitAttention):
        def forward(self, x: Tensor) -> Tensor:
            gram = self.q(x).transpose(1, 2) @ self.k(x)
            return self.proj(self.v(x) @ gram)

    graph = traced(Outer())
    reasons = {layer.layer: str(layer.reasons[0]) for layer in graph.kept}
    assert "both carry channels" in reasons["attentions.0.q"]
    prove(graph, halved(graph))


def test_a_channel_picked_by_position_stays() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(5, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inner(x)
            return self.outer(x.relu()) * x[:, 0].sigmoid()[:, None]

    graph = cutback.trace(Gated(), torch.randn(2, 5))
    assert [(layer.layer, layer.channels) for layer in graph.kept] == [("inner", 1), ("outer", 6)]
    plan = halved(graph)
    prove(graph, plan)
    assert 0 in plan.slices["inner.weight"][0].indices


@pytest.mark.parametrize("product", [PRODUCTS["matmul"], implicit_attention])
def test_a_bias_laid_together_from_parameters_follows(product) -> None:
    graph = traced(JoinedBias(product))
    plan = halved(graph)
    prove(graph, plan)
    if product is implicit_attention:
        assert {"attentions.0.qkv.weight", "attentions.0.q_bias"} <= set(plan.scales)
        assert "attentions.0.v_bias" not in plan.scales
    rows = plan.slices["attentions.0.qkv.weight"][0].indices
    laid = [
        third * HEADS * WIDTH + index
        for third, name in enumerate(("q_bias", "k_bias", "v_bias"))
        for index in plan.slices[f"attentions.0.{name}"][0].indices
    ]
    assert len(rows) == 3 * HEADS * WIDTH // 2
    assert list(rows) == laid


def test_a_head_width_computed_from_the_embeddings_keeps_both_equal() -> None:
    graph = traced(EqualWidthAttention(), EqualWidthAttention())
    for kept, share in ((16, 80), (12, 60), (8, 50)):
        plan = cutback.plan(graph, score="random", budget=f"channels={share}%")
        prove(graph, plan)
        for number in range(2):
            slices = plan.slices[f"attentions.{number}.qkv.weight"]
            assert len(slices[1].indices) == kept
            for head in range(12):
                assert sum(index // 5 == head for index in slices[0].indices) == kept // 4
    cutback.apply_(graph, plan)
    assert graph.model.attentions[0].heads == 4
    assert graph.model(tokens()).shape == (2, 3)


def test_torchs_own_module_keeps_its_inner_width_equal_to_the_embedding() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 24), layer, nn.Linear(24, 3))
    graph = cutback.trace(model, tokens())
    plan = cutback.plan(graph, score="random", budget="channels=50%")
    prove(graph, plan)
    kept = plan.slices["1.self_attn.in_proj_weight"]
    embedding = kept[1].indices
    assert len(embedding) == 12
    assert [sum(index // 6 == head for index in kept[0].indices) for head in range(12)] == [3] * 12
    assert any(
        sorted(index % 24 for index in kept[0].indices if index // 24 == part) != list(embedding) for part in range(3)
    )
    cutback.apply_(graph, plan)
    assert (layer.self_attn.embed_dim, layer.self_attn.num_heads, layer.self_attn.head_dim) == (12, 4, 3)
    assert layer.train()(torch.randn(2, 7, 12)).shape == (2, 7, 12)


@pytest.mark.parametrize(("heads", "left"), [(4, 2), (2, 1)])
def test_whole_heads_of_torchs_own_module_go(heads: int, left: int) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, heads, 32, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 24), layer, nn.Linear(24, 3))
    graph = cutback.trace(model, tokens(), granularity={"1.self_attn": "blocks"})
    plan = cutback.plan(graph, score="random", budget="channels=50%")
    prove(graph, plan)
    width = 24 // heads
    rows = plan.slices["1.self_attn.in_proj_weight"][0].indices
    assert [sum(index // width == head for index in rows) for head in range(3 * heads)].count(width) == 3 * left
    cutback.apply_(graph, plan)
    attention = layer.self_attn
    assert (attention.embed_dim, attention.num_heads, attention.head_dim) == (12, left, width)
    assert layer.train()(torch.randn(2, 7, 12)).shape == (2, 7, 12)


def test_a_transformer_with_cross_attention_shrinks_as_a_whole() -> None:
    torch.manual_seed(0)

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(5, 24), nn.Linear(24, 3)
            self.inner = nn.Transformer(24, 4, 1, 1, 32, dropout=0.0, batch_first=True)
            self.queries = nn.Parameter(torch.randn(3, 24))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(self.embed(x), self.queries.expand(len(x), -1, -1)))

    model = Detector()
    graph = cutback.trace(model, tokens())
    plan = cutback.plan(graph, score="random", budget="channels=50%")
    cutback.apply_(graph, plan)
    across = model.inner.decoder.layers[0].multihead_attn
    assert (model.inner.d_model, across.embed_dim, across.head_dim, model.queries.shape) == (12, 12, 3, (3, 12))
    assert model.train()(tokens()).shape == (2, 3, 3)


class Across(nn.Module):
    """Torch's own module with keys and values of other widths, which then have a weight each."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(5, 24), nn.Linear(5, 10), nn.Linear(5, 14)
        self.inner = nn.MultiheadAttention(24, 4, kdim=10, vdim=14, batch_first=True)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(self.query(x), self.key(x), self.value(x), need_weights=False)[0])


def test_keys_and_values_of_other_widths_shrink_by_themselves() -> None:
    torch.manual_seed(0)
    model = Across()
    graph = cutback.trace(model, tokens())
    plan = cutback.plan(graph, score="random", budget="channels=50%")
    prove(graph, plan)
    cutback.apply_(graph, plan)
    inner = model.inner
    assert (inner.embed_dim, inner.head_dim, inner.kdim, inner.vdim) == (24, 6, 5, 7)
    assert (inner.k_proj_weight.shape, inner.v_proj_weight.shape) == ((24, 5), (24, 7))
    assert model.train()(tokens()).shape == (2, 7, 3)
