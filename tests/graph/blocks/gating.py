"""Gates: gated units, squeeze-excite, CBAM, split and selective attention."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.base import Block, block, conv_norm


@block("gated", "gated units", how="chunk")
@block("glu", "gated units", how="glu")
@block("glu, module", "gated units", how="module")
@block("swiglu", "gated units", how="swiglu")
@block("simple gate", "gated units", how="product")
class Gated(Block):
    shrinks = ("both.0",)

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.both, self.last, self.how = conv_norm(channels, 14), conv_norm(7, channels, 1), how
        self.glu = nn.GLU(dim=1)

    def forward(self, x):
        both = self.both(x)
        value, gate = both.chunk(2, 1)
        if self.how == "chunk":
            y = value * torch.sigmoid(gate)
        elif self.how == "glu":
            y = F.glu(both, 1)
        elif self.how == "module":
            y = self.glu(both)
        else:
            y = value * (F.silu(gate) if self.how == "swiglu" else gate)
        return x + self.last(y)


@block("gated by halves of linear", "gated units")
class GatedTokens(Block):
    shrinks = ("both",)

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.both, self.last = nn.Linear(channels, 20), nn.Linear(10, channels)

    def forward(self, x):
        gate, value = self.both(x.movedim(1, -1)).chunk(2, dim=-1)
        return self.last(F.gelu(gate) * value).movedim(-1, 1)


@block("squeeze", "squeeze-excite", how="linear")
@block("squeeze, convolution", "squeeze-excite", how="convolution")
class Squeeze(Block):
    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.how, self.shrinks = how, ("down",)
        if how == "linear":
            self.down, self.up = nn.Linear(channels, 5), nn.Linear(5, channels)
        else:
            self.down, self.up = nn.Conv2d(channels, 5, 1), nn.Conv2d(5, channels, 1)

    def forward(self, x):
        if self.how == "linear":
            return x * self.up(self.down(x.mean((2, 3))).relu_()).sigmoid()[:, :, None, None]
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


@block("cbam", "cbam")
class Cbam(Block):
    shrinks = ("widen.0", "mlp.0")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 10), conv_norm(10, channels, 1)
        self.mlp = nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 10))
        self.spatial = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        x = self.widen(x).relu()
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        x = x * gate.sigmoid()[..., None, None]
        both = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return self.narrow(x * self.spatial(both).sigmoid())


@block("split attention", "split attention")
class SplitAttention(Block):
    """ResNeSt's: a grouped convolution makes two candidates, a softmax over the two weighs them."""

    shrinks = ("first.0", "down")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.both = conv_norm(channels, 8, 1), conv_norm(8, 16, groups=2)
        self.down, self.up, self.last = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1), conv_norm(8, channels, 1)

    def forward(self, x):
        y = self.both(self.first(x)).relu()
        n, c, h, w = y.shape
        y = y.reshape(n, 2, c // 2, h, w)
        gate = self.up(F.relu(self.down(y.sum(1).mean((2, 3), keepdim=True))))
        gate = gate.view(n, 2, c // 2).softmax(1).view(n, 2, c // 2, 1, 1)
        return self.last((y * gate).sum(1))


@block("selective kernels", "split attention")
class SelectiveKernels(Block):
    """SKNet's: two paths stacked, weighed by a softmax over the paths."""

    shrinks = ("small.0", "large.0", "down")

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.small, self.large = conv_norm(channels, 9), conv_norm(channels, 9, 5)
        self.down, self.up = nn.Linear(9, 5), nn.ModuleList(nn.Linear(5, 9) for _ in range(2))
        self.last = conv_norm(9, channels, 1)

    def forward(self, x):
        paths = torch.stack([self.small(x), self.large(x)], 1)
        summary = self.down(paths.sum(1).mean((2, 3))).relu()
        gate = torch.stack([up(summary) for up in self.up], 1).softmax(1)
        return self.last((paths * gate[..., None, None]).sum(1))
