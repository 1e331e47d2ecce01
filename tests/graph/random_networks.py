"""Random networks for property tests: a list of drawn blocks, each keeping or changing the number of channels."""

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F


def conv_norm(channels: int, out: int, kernel: int = 3, **options) -> nn.Sequential:
    padding = options.pop("padding", kernel // 2)
    convolution = nn.Conv2d(channels, out, kernel, padding=padding, bias=options.pop("bias", False), **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


class Block(nn.Module):
    """A block that turns ``channels`` into ``out`` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = channels


class Plain(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 2
        self.layers = nn.Sequential(conv_norm(channels, self.out), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.layers(x)


class Strided(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layers = conv_norm(channels, channels, stride=2, dilation=2, padding=2)

    def forward(self, x):
        return F.interpolate(F.gelu(self.layers(x)), scale_factor=2.0)


class Residual(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first, self.second = conv_norm(channels, channels + 3), conv_norm(channels + 3, channels)

    def forward(self, x):
        y = self.second(F.relu(self.first(x), inplace=True))
        y += x
        return y.relu_()


class Projected(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 4
        self.main, self.shortcut = conv_norm(channels, self.out), conv_norm(channels, self.out, 1, bias=True)

    def forward(self, x):
        return torch.add(self.main(x), self.shortcut(x), alpha=0.5).clamp_min_(0)


class Dense(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.left, self.right = conv_norm(channels, 4), conv_norm(channels, 3, 1)
        self.out = channels + 7

    def forward(self, x):
        return torch.cat([self.left(x), x, self.right(x).tanh()], dim=1)


class Chunked(Block):
    def __init__(self, channels: int, how: str = "chunk") -> None:
        super().__init__(channels)
        self.how = how
        self.widen = conv_norm(channels, 2 * channels)
        self.inner = conv_norm(channels, channels)
        self.merge = conv_norm(2 * channels, channels, 1)

    def forward(self, x):
        x = self.widen(x)
        if self.how == "chunk":
            left, right = x.chunk(2, dim=1)
        elif self.how == "split":
            left, right = torch.split(x, x.shape[1] // 2, dim=1)
        elif self.how == "slice":
            left, right = x[:, : x.size(1) // 2], x[:, x.size(1) // 2 :]
        else:
            left, right = x.split([self.inner[0].in_channels, x.shape[1] - self.inner[0].in_channels], 1)
        return self.merge(torch.cat([self.inner(left), right], 1))


class Gated(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.both = conv_norm(channels, 2 * channels)

    def forward(self, x):
        value, gate = self.both(x).chunk(2, 1)
        return value * torch.sigmoid(gate)


class LiteralSplit(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.widen, self.narrow = conv_norm(channels, 12), conv_norm(9, channels)

    def forward(self, x):
        left, right = self.widen(x).split([3, 9], dim=1)
        return self.narrow(right) + left.mean(dim=1, keepdim=True)


class Depthwise(Block):
    def __init__(self, channels: int, multiplier: int = 1) -> None:
        super().__init__(channels)
        wide = channels * multiplier
        self.layers = nn.Sequential(
            conv_norm(channels, wide, groups=channels), nn.Hardswish(inplace=True), conv_norm(wide, channels, 1)
        )

    def forward(self, x):
        return self.layers(x)


class Grouped(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layers = nn.Sequential(
            conv_norm(channels, 12, 1), conv_norm(12, 18, groups=3), nn.ReLU6(), conv_norm(18, channels, 1)
        )

    def forward(self, x):
        return self.layers(x)


class Shared(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layer, self.norms = nn.Conv2d(channels, channels, 3, padding=1), nn.ModuleList()
        self.norms.extend(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x):
        for norm in self.norms:
            x = F.elu(norm(self.layer(x)))
        return x


class Squeeze(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.down, self.up = nn.Linear(channels, 5), nn.Linear(5, channels)

    def forward(self, x):
        pooled = x.mean((2, 3))
        return x * self.up(self.down(pooled).relu_()).sigmoid()[:, :, None, None]


class Scaled(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.spatial = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x):
        x = x * self.gain + self.shift
        return x.mul(self.spatial(x).sigmoid_())


class InPlace(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.layer = conv_norm(channels, channels)

    def forward(self, x):
        y = self.layer(x)
        view = y[:, :, 1:-1, 1:-1]
        view.mul_(0.5)
        y.add_(1).clamp_(min=-2)
        y[:, :, ::2] += 0.25
        return y.sub_(x)


class Transposed(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 1
        self.up = nn.ConvTranspose2d(channels, self.out, 2, stride=2)
        self.act = nn.PReLU(self.out)

    def forward(self, x):
        return F.avg_pool2d(self.act(self.up(x)), 2)


class Reshaped(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = x.view(b, c, h * w).transpose(1, 2)
        return self.mix(tokens).permute(0, 2, 1).reshape(b, -1, h, w) + x


class Padded(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.out = channels + 4
        self.layer = conv_norm(channels, self.out)

    def forward(self, x):
        return self.layer(x) + F.pad(x, (0, 0, 0, 0, 2, 2))


BLOCKS = {
    "plain": Plain,
    "strided": Strided,
    "residual": Residual,
    "projected": Projected,
    "dense": Dense,
    "chunk": Chunked,
    "split": lambda channels: Chunked(channels, "split"),
    "slice": lambda channels: Chunked(channels, "slice"),
    "sizes": lambda channels: Chunked(channels, "sizes"),
    "gated": Gated,
    "literal": LiteralSplit,
    "depthwise": Depthwise,
    "multiplier": lambda channels: Depthwise(channels, 2),
    "grouped": Grouped,
    "shared": Shared,
    "squeeze": Squeeze,
    "scaled": Scaled,
    "in_place": InPlace,
    "transposed": Transposed,
    "reshaped": Reshaped,
    "padded": Padded,
}


class RandomNetwork(nn.Module):
    """A stem, the named blocks and a head."""

    def __init__(self, names: list[str], head: str) -> None:
        super().__init__()
        self.stem = conv_norm(3, 8)
        blocks, channels = [], 8
        for name in names:
            block = BLOCKS[name](channels)
            channels = block.out
            blocks.append(block)
        self.blocks, self.head = nn.ModuleList(blocks), head
        self.classifier = nn.Linear(channels * (16 if head == "flatten" else 1), 4)

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:
            x = block(x)
        if self.head == "flatten":
            x = F.adaptive_max_pool2d(x, 4).flatten(1)
        elif self.head == "view":
            x = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        else:
            x = x.mean([2, 3])
        return self.classifier(F.dropout(x, 0.3, self.training))


networks = st.builds(
    RandomNetwork,
    st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5),
    st.sampled_from(["flatten", "view", "mean"]),
)
