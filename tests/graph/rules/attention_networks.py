"""Small networks with attention in its usual spellings, on token sequences ``(B, N, C)``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS, WIDTH, CHANNELS, TOKENS = 3, 8, 20, 7
SEQUENCE = (2, TOKENS, 5)


def matmul_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * 0.3) @ k.transpose(-2, -1)).softmax(-1) @ v


def bmm_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    weights = torch.baddbmm(torch.zeros(1), q, k.mT, beta=0, alpha=0.3).softmax(-1)
    return torch.bmm(weights, v).unflatten(0, (batch, heads))


def einsum_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(0.3).softmax(-1)
    return torch.einsum("...ij,...jd->...id", weights, v)


def scaled_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=0.3)


def implicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "matmul": matmul_attention,
    "bmm": bmm_attention,
    "einsum": einsum_attention,
    "scaled": scaled_attention,
    "implicit": implicit_attention,
}


def unbound(qkv: Tensor) -> tuple[Tensor, ...]:
    batch, tokens = qkv.shape[:2]
    return qkv.reshape(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)


def indexed(qkv: Tensor) -> tuple[Tensor, ...]:
    batch, tokens = qkv.shape[:2]
    qkv = qkv.view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
    return qkv[0], qkv[1], qkv[2]


def chunked(qkv: Tensor) -> tuple[Tensor, ...]:
    return tuple(part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))


FUSED: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {"unbound": unbound, "indexed": indexed, "chunked": chunked}


class FusedAttention(nn.Module):
    """One projection for query, key and value."""

    def __init__(self, parts=unbound, product=matmul_attention, *, bias: bool = True) -> None:
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * HEADS * WIDTH, bias=bias)
        self.proj = nn.Linear(HEADS * WIDTH, CHANNELS)
        self.parts, self.product = parts, product

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(self.qkv(x))
        return self.proj(self.product(q, k, v).transpose(1, 2).flatten(2))


class SplitAttention(nn.Module):
    """A projection each, keys and queries normalised."""

    def __init__(self, product=matmul_attention, *, normalised: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(CHANNELS, HEADS * WIDTH) for _ in range(3))
        self.q_norm, self.k_norm = (nn.LayerNorm(WIDTH) if normalised else nn.Identity() for _ in range(2))
        self.proj = nn.Linear(HEADS * WIDTH, CHANNELS)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = self.product(self.q_norm(q), self.k_norm(k), v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Embedding, class token, position embedding, blocks of attention and MLP, a head on the class token."""

    def __init__(self, *attentions: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Linear(5, CHANNELS)
        self.cls = nn.Parameter(torch.randn(1, 1, CHANNELS))
        self.position = nn.Parameter(torch.randn(1, TOKENS + 1, CHANNELS))
        self.attentions = nn.ModuleList(attentions)
        self.norms = nn.ModuleList(nn.LayerNorm(CHANNELS) for _ in attentions)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 16), nn.GELU(), nn.Linear(16, CHANNELS))
            for _ in attentions
        )
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.position
        for norm, attention, mlp in zip(self.norms, self.attentions, self.mlps, strict=True):
            x = x + attention(norm(x))
            x = x + mlp(x)
        return self.head(x[:, 0])
