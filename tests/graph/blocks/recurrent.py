"""Recurrent layers over the rows of the picture."""

from torch import nn

from tests.graph.blocks.base import Block, block, conv_norm


@block("rnn", "rnn", kind=nn.RNN)
@block("rnn, relu", "rnn", kind=nn.RNN, nonlinearity="relu", num_layers=2)
@block("lstm", "lstm", kind=nn.LSTM)
@block("lstm, two layers both ways", "lstm", kind=nn.LSTM, num_layers=2, bidirectional=True)
@block("lstm, no bias", "lstm", kind=nn.LSTM, bias=False)
@block("gru", "gru", kind=nn.GRU)
@block("gru, two layers both ways", "gru", kind=nn.GRU, num_layers=2, bidirectional=True)
class Recurrent(Block):
    def __init__(self, channels: int, kind: type[nn.RNNBase], **options) -> None:
        super().__init__(channels)
        self.widen = conv_norm(channels, 6, 1)
        self.inner = kind(6, 5, batch_first=True, **options)
        self.narrow = nn.Linear(10 if self.inner.bidirectional else 5, channels)
        self.shrinks = ("widen.0", "inner")

    def forward(self, x):
        rows = self.widen(x).permute(0, 2, 3, 1).flatten(0, 1)
        rows, _ = self.inner(rows)
        return x + self.narrow(rows).unflatten(0, x.shape[:1] + x.shape[2:3]).permute(0, 3, 1, 2)
