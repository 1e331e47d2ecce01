"""Attention in its usual spellings, over all places and in windows."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm

HEADS, WIDTH = 2, 4


class Tokens(Block):
    """Turns the picture into tokens of width 8, mixes them, and turns them back."""

    def __init__(self, channels: int, mixer: nn.Module) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, HEADS * WIDTH, 1), conv_norm(HEADS * WIDTH, channels, 1)
        self.norm, self.mixer = nn.LayerNorm(HEADS * WIDTH), mixer

    def forward(self, x):
        y = self.widen(x)
        tokens = y.flatten(2).transpose(1, 2)
        tokens = tokens + self.mixer(self.norm(tokens))
        return x + self.narrow(tokens.transpose(1, 2).reshape(y.shape))


class Fused(nn.Module):
    """One projection makes queries, keys and values; the scores are computed by hand."""

    def __init__(self, how: str) -> None:
        super().__init__()
        dim = HEADS * WIDTH
        self.how, self.num_heads, self.head_dim, self.scale = how, HEADS, WIDTH, WIDTH**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.logit_scale = nn.Parameter(torch.full((HEADS, 1, 1), 2.0)) if how.startswith("cosine") else None

    def forward(self, x):
        b, n, c = x.shape
        if self.how == "channel sizes":
            qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads)
        elif self.how in ("free", "cosine", "cosine, spelled out"):
            qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, -1)
        else:
            qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.how == "functional":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.logit_scale is not None:
            q, k = self.normalized(q), self.normalized(k)
            y = ((q @ k.transpose(-2, -1)) * self.logit_scale.clamp(max=4.6).exp()).softmax(dim=-1) @ v
        elif self.how == "divided scores":
            y = (q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))).softmax(dim=-1) @ v
        else:
            y = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        y = y.transpose(1, 2)
        return self.proj(y.reshape(b, n, c) if self.how == "channel sizes" else y.flatten(2))

    def normalized(self, x):
        if self.how == "cosine":
            return F.normalize(x, dim=-1)
        return x * (x * x).sum(-1, keepdim=True).clamp_min(1e-6).rsqrt()


class Separate(nn.Module):
    """Three projections, and torch's attention function with or without a scale of its own."""

    def __init__(self, *, scaled: bool) -> None:
        super().__init__()
        dim = HEADS * WIDTH
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        self.scale = 0.3 if scaled else None

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))


class Module(nn.Module):
    """torch's own module; of several tensors for query, key and value each has a part of the weight."""

    def __init__(self, *, weights: bool, tensors: int = 1) -> None:
        super().__init__()
        self.inner, self.weights = nn.MultiheadAttention(HEADS * WIDTH, HEADS, batch_first=True), weights
        self.tensors = tensors

    def forward(self, x):
        key = x if self.tensors == 1 else x.flip(1)
        value = key if self.tensors < 3 else x.relu()
        return self.inner(x, key, value, need_weights=self.weights)[0]


MIXERS = {
    "fused": lambda: Fused("attributes"),
    "fused, free": lambda: Fused("free"),
    "fused, outer sizes": lambda: Fused("channel sizes"),
    "fused, functional": lambda: Fused("functional"),
    "divided scores": lambda: Fused("divided scores"),
    "cosine": lambda: Fused("cosine"),
    "cosine, spelled out": lambda: Fused("cosine, spelled out"),
    "separate": lambda: Separate(scaled=False),
    "separate, scaled": lambda: Separate(scaled=True),
    "module": lambda: Module(weights=False),
    "module, weights": lambda: Module(weights=True),
    "module, across": lambda: Module(weights=False, tensors=2),
    "module, three tensors": lambda: Module(weights=True, tensors=3),
}


@block("attention, fused", "attention, fused", how="fused", inner=("qkv",))
@block("attention, fused, free", "attention, fused", how="fused, free", inner=("qkv",))
@block("attention, fused, outer sizes", "attention, fused", how="fused, outer sizes", inner=("qkv",))
@block("attention, fused, functional", "attention, functional", how="fused, functional", inner=("qkv",))
@block("attention, divided scores", "attention, fused", how="divided scores", inner=("qkv",))
@block("attention, cosine", "attention, fused", how="cosine", inner=("qkv",))
@block("attention, cosine, spelled out", "attention, fused", how="cosine, spelled out", inner=("qkv",))
@block("attention, separate", "attention, functional", how="separate", inner=("q", "k", "v"))
@block("attention, separate, scaled", "attention, functional", how="separate, scaled", inner=("q", "k", "v"))
@block("attention, module", "attention, module", how="module", inner=())
@block("attention, module, weights", "attention, module", how="module, weights", inner=())
@block("attention, module, across", "attention, module", how="module, across", inner=())
@block("attention, module, three tensors", "attention, module", how="module, three tensors", inner=())
class Attending(Tokens):
    def __init__(self, channels: int, how: str, inner: tuple[str, ...]) -> None:
        super().__init__(channels, MIXERS[how]())
        self.shrinks = ("widen.0", *(f"mixer.{name}" for name in inner))


@block("attention, encoder", "attention, module")
class Encoder(Tokens):
    """torch's encoder layer."""

    shrinks = ("widen.0", "mixer.linear1")

    def __init__(self, channels: int) -> None:
        dim = HEADS * WIDTH
        super().__init__(channels, nn.TransformerEncoderLayer(dim, HEADS, 12, dropout=0.1, batch_first=True))


@block("windows", "window partitioning")
class Windows(Block):
    """Attention inside windows of the picture, as Swin's: view and permute, there and back."""

    shrinks = ("widen.0", "hidden")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 8, 1), conv_norm(8, channels, 1)
        self.attention, self.hidden, self.back = Fused("free"), nn.Linear(8, 10), nn.Linear(10, 8)

    def forward(self, x):
        y = torch.roll(self.widen(x).permute(0, 2, 3, 1), shifts=(-2, -2), dims=(1, 2))
        n, h, w, c = y.shape
        windows = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        windows = windows + self.attention(windows)
        windows = windows + self.back(self.hidden(windows).relu())
        y = windows.view(n, h // 4, w // 4, 4, 4, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, -1)
        return self.narrow(torch.roll(y, shifts=(2, 2), dims=(1, 2)).permute(0, 3, 1, 2))


@block("windows, convolved", "window partitioning")
class WindowsConvolved(Block):
    """Windows folded into the batch, convolved and unfolded."""

    shrinks = ("widen.0", "inner.0")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.inner, self.narrow = conv_norm(channels, 6, 1), conv_norm(6, 9), conv_norm(9, channels, 1)

    def forward(self, x):
        y = self.widen(x)
        n, c, h, w = y.shape
        y = y.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(n * 4, c, h // 2, w // 2)
        y = self.inner(y).relu()
        y = y.view(n, 2, 2, -1, h // 2, w // 2).permute(0, 3, 1, 4, 2, 5).reshape(n, -1, h, w)
        return self.narrow(y)
