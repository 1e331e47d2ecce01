"""Attention whose head width is fixed loses whole heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.errors import NotEquivalent
from tests.surgery.test_apply import one_swapped

HEADS, WIDTH, TOKENS = 4, 4, 9


class Rotary(nn.Module):
    """Turns queries and keys by angles from a table as wide as a head, past a number of leading tokens."""

    def __init__(self, leading: int) -> None:
        super().__init__()
        dim = HEADS * WIDTH
        self.num_heads, self.head_dim, self.dim, self.leading = HEADS, WIDTH, dim, leading
        self.embed, self.qkv, self.proj = nn.Linear(6, dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.head = nn.Linear(dim, 5)
        angles = torch.outer(torch.arange(TOKENS - leading), torch.tensor([1.0, 0.1])).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def turned(self, x):
        first, x = x[:, :, : self.leading], x[:, :, self.leading :]
        one, other = x.chunk(2, -1)
        return torch.cat([first, x * self.cosine + torch.cat([-other, one], -1) * self.sine], 2)

    def forward(self, x):
        batch, tokens, _ = x.shape
        x = self.embed(x)
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)
        return self.head(x + self.proj(y.transpose(1, 2).reshape(batch, tokens, self.dim)))


@pytest.mark.parametrize("leading", [0, 2])
def test_rotary_attention_loses_whole_heads(leading):
    torch.manual_seed(0)
    model, tokens = Rotary(leading), torch.randn(2, TOKENS, 6)
    graph = cutback.trace(model, tokens)
    plan = cutback.plan(graph, budget="channels=50%", score=cutback.scores.Random(0))
    rows = torch.tensor(plan.slices["qkv.weight"][0].indices).view(3, -1, WIDTH)
    assert rows.shape[1] == HEADS // 2
    assert torch.equal(rows[0] + HEADS * WIDTH, rows[1])  # a query and its key go together
    assert torch.equal(rows, rows[..., :1] + torch.arange(WIDTH))
    assert torch.equal(rows[..., 0] % WIDTH, torch.zeros_like(rows[..., 0]))
    assert cutback.prove(graph, plan).modes == ("eval", "train")
    with pytest.raises(NotEquivalent):
        cutback.prove(graph, one_swapped(plan, "proj.weight", 1))
    cutback.apply_(graph, plan)
    assert model.num_heads == HEADS // 2
    assert model.head_dim == WIDTH
