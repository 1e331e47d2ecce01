"""Mixing of tokens, torch's own multi-head attention, and parameters that are added to attention."""

import pytest
import torch
from torch import Tensor, nn

import cutback
from cutback.graph.graph import Graph
from cutback.graph.labels import varying_dimensions
from cutback.surgery.verify import prove
from tests.graph.rules.attention_networks import (
    CHANNELS,
    HEADS,
    SEQUENCE,
    TOKENS,
    WIDTH,
    Biased,
    Mixer,
    Multihead,
    Transformer,
)


def tokens() -> Tensor:
    return torch.randn(SEQUENCE, generator=torch.Generator().manual_seed(1))


def traced(attention: nn.Module) -> Graph:
    torch.manual_seed(0)
    return cutback.trace(Transformer(attention), tokens())


def sizes(graph: Graph, share: int) -> dict[str, int]:
    """Plan, prove, and return how many slices stay along the first dimension of each state that is cut there."""
    plan = cutback.plan(graph, score="random", budget=f"channels={share}%")
    prove(graph, plan)
    return {name: len(kept[0].indices) for name, kept in plan.slices.items() if 0 in kept}


@pytest.mark.parametrize("how", ["linear", "conv", "einsum", "product"])
def test_channels_pass_what_mixes_tokens_and_its_weights_stay_whole(how: str) -> None:
    graph = traced(Mixer(how))
    for share, half, embedding in ((70, 8, 14), (50, 6, 10), (30, 3, 6)):
        kept = sizes(graph, share)
        assert kept["attentions.0.inner.weight"] == 2 * half
        assert kept["embed.weight"] == kept["attentions.0.outer.weight"] == embedding
        assert not any("mix" in name or name == "attentions.0.weight" for name in kept)


def test_value_and_gate_of_a_token_mixer_are_coupled_position_by_position() -> None:
    graph = traced(Mixer("linear"))
    (group,) = [group for group in graph.groups if "attentions.0.inner" in group.layers]
    slices = next(found for slot, found in group.slices.items() if slot.state == "attentions.0.inner.weight")
    assert slices.tolist() == [[unit, unit + 12] for unit in range(12)]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention_keeps_an_inner_width_equal_to_the_embedding(*, weights: bool, batch_first: bool) -> None:
    graph = traced(Multihead(weights=weights, batch_first=batch_first))
    for share, embedding in ((70, 12), (50, 8), (30, 4)):
        kept = sizes(graph, share)
        assert kept["attentions.0.inner.in_proj_weight"] == 3 * embedding
        assert kept["attentions.0.inner.out_proj.weight"] == kept["embed.weight"] == embedding


@pytest.mark.parametrize("frozen", [False, True])
def test_a_transformer_layer_is_cut_and_still_trains(*, frozen: bool) -> None:
    torch.manual_seed(0)
    model = Transformer(nn.TransformerEncoderLayer(CHANNELS, 4, 16, batch_first=True))
    model.requires_grad_(not frozen).eval()
    graph = cutback.trace(model, tokens())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    attention = model.attentions[0].self_attn
    assert attention.embed_dim == attention.out_proj.in_features == 8
    assert model.attentions[0].linear1.out_features == 8
    assert model(tokens()).shape == (2, 3)
    model.requires_grad_(True).train()(tokens()).sum().backward()


def test_tables_of_relative_positions_and_a_factor_a_head_leave_the_width_free() -> None:
    graph = traced(Biased())
    for share, width in ((70, 5), (50, 4), (30, 2)):
        kept = sizes(graph, share)
        assert kept["attentions.0.qkv.weight"] == 3 * HEADS * width
        assert not {"attentions.0.table", "attentions.0.temperature"} & set(kept)
    assert width < WIDTH


def test_labels_of_a_stream_with_class_token_and_positions_are_told_once() -> None:
    class Reversed(Transformer):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.embed(x)], 1)
            return self.head((self.position + x).mean(1))

    torch.manual_seed(0)
    model = Reversed()
    graph = cutback.trace(model, tokens())
    (capture, labelling) = graph.captures[0], graph.coupling.labellings[0]
    calls = [node for node in capture.nodes if node.op == "call_function"]
    names = [str(node.target).split(".")[1] for node in calls]
    for name in ("cat", "add"):
        (labels,) = labelling.trails[names.index(name)].results
        assert varying_dimensions(labels) == [2]
    assert sizes(graph, 50)["embed.weight"] == CHANNELS // 2


def test_a_convolution_that_slides_over_channels_keeps_them_with_a_reason() -> None:
    class Sliding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.out = nn.Conv1d(TOKENS + 1, TOKENS + 1, 3, padding=1), nn.Linear(CHANNELS, CHANNELS)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.conv(x))

    graph = traced(Sliding())
    assert "slides over" in {layer.layer: str(layer.reasons[0]) for layer in graph.kept}["embed"]
    assert sizes(graph, 50) == {"mlps.0.1.weight": 8, "mlps.0.1.bias": 8}


class Unfolded(nn.Module):
    """Channels folded into the batch, split into patches and taken out again, as MobileViT does it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.inner, self.last = nn.Conv2d(3, 6, 1), nn.Linear(6, 6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        batch, channels, height, width = x.shape
        rows, columns = height // 2, width // 2
        x = x.reshape(batch * channels * rows, 2, columns, 2).transpose(1, 2)
        x = x.reshape(batch, channels, rows * columns, 4).transpose(1, 3).reshape(batch * 4, rows * columns, -1)
        x = (x + self.inner(x)).view(batch, 4, rows * columns, -1).transpose(1, 3)
        x = x.reshape(batch * channels * rows, columns, 2, 2).transpose(1, 2)
        return self.last(x.reshape(batch, channels, height, width).relu())


def test_channels_folded_into_the_batch_and_split_again_stay_apart() -> None:
    torch.manual_seed(0)
    graph = cutback.trace(Unfolded(), torch.randn(2, 3, 4, 8))
    assert {group.units for group in graph.groups} == {6}
    kept = sizes(graph, 50)
    assert kept["conv.weight"] == kept["inner.weight"] == 3
