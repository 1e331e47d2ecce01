"""Small networks with attention in its usual spellings, on token sequences ``(B, N, C)``."""

import math
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


def powered_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def divided_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))).softmax(-1) @ v


def divided_batches(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads = q.shape[:2]
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    weights = torch.bmm(q, k.mT).unflatten(0, (batch, heads)) * k.size(-1) ** -0.5
    return torch.bmm(weights.softmax(-1).flatten(0, 1), v).unflatten(0, (batch, heads))


def scaled_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=0.3)


def implicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def cosine_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 10).softmax(-1) @ v


def euclidean_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    far = (q * q).sum(-1)[..., None] + (k * k).sum(-1)[..., None, :] - 2 * (q @ k.mT)
    return (-far).softmax(-1) @ v


PRODUCTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "matmul": matmul_attention,
    "bmm": bmm_attention,
    "einsum": einsum_attention,
    "powered": powered_attention,
    "divided": divided_attention,
    "divided batches": divided_batches,
    "scaled": scaled_attention,
    "implicit": implicit_attention,
    "cosine": cosine_attention,
    "euclidean": euclidean_attention,
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


class Multihead(nn.Module):
    """Torch's own module, in one of its two code paths."""

    def __init__(self, *, weights: bool, batch_first: bool = True) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(CHANNELS, 4, batch_first=batch_first)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=self.weights)[0]


class Mixer(nn.Module):
    """Mixes tokens by a linear layer, a convolution over tokens or a bare product, with a gate as gMLP has it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        tokens = TOKENS + 1
        if how == "linear":
            self.mix = nn.Sequential(nn.Linear(tokens, 6), nn.GELU(), nn.Linear(6, tokens))
        elif how == "conv":
            self.mix = nn.Conv1d(tokens, tokens, 1)
        else:
            self.weight = nn.Parameter(torch.randn(tokens, tokens))
        self.norm = nn.LayerNorm(CHANNELS)
        self.inner, self.outer = nn.Linear(CHANNELS, 24), nn.Linear(12, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.inner(self.norm(x)).chunk(2, -1)
        if self.how == "linear":
            gate = self.mix(gate.transpose(1, 2)).transpose(1, 2)
        elif self.how == "conv":
            gate = self.mix(gate)
        elif self.how == "einsum":
            gate = torch.einsum("mn,bnc->bmc", self.weight, gate)
        else:
            gate = self.weight @ gate
        return self.outer(value * gate)


class Biased(nn.Module):
    """Attention with a table of relative positions, as Swin has it, in the window of all tokens."""

    def __init__(self) -> None:
        super().__init__()
        count = TOKENS + 1
        self.table = nn.Parameter(torch.randn(2 * count - 1, HEADS))
        place = torch.arange(count)
        self.register_buffer("index", (place[:, None] - place[None, :] + count - 1).flatten())
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1) + 0.5)
        self.qkv, self.proj = nn.Linear(CHANNELS, 3 * HEADS * WIDTH), nn.Linear(HEADS * WIDTH, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = unbound(self.qkv(x))
        count = x.shape[1]
        bias = self.table[self.index].view(count, count, -1).permute(2, 0, 1).contiguous()
        scores = (q @ k.transpose(-2, -1)) * self.temperature + bias.unsqueeze(0)
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class JoinedBias(nn.Module):
    """One projection whose bias is laid together from two parameters and zeros, as BEiT has it."""

    def __init__(self, product=matmul_attention) -> None:
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * HEADS * WIDTH, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.randn(HEADS * WIDTH)) for _ in range(2))
        self.register_buffer("k_bias", torch.zeros(HEADS * WIDTH))
        self.proj = nn.Linear(HEADS * WIDTH, CHANNELS)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        q, k, v = unbound(F.linear(x, self.qkv.weight, bias))
        return self.proj(self.product(q, k, v).transpose(1, 2).flatten(2))


class EqualWidthAttention(nn.Module):
    """As transformers are mostly written: the head width is computed from the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.qkv, self.proj = nn.Linear(CHANNELS, 3 * CHANNELS), nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return self.proj(matmul_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width))
