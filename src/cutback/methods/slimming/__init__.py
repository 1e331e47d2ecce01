"""Network Slimming (Liu et al., 2017): sparse scales of batch norms, and channel selection for shared streams."""

from cutback.methods.slimming.channel_selection import ChannelSelection
from cutback.methods.slimming.inserting import with_channel_selection
from cutback.methods.slimming.method import Slimming
from cutback.methods.slimming.sparsity import pull

__all__ = ["ChannelSelection", "Slimming", "pull", "with_channel_selection"]
