"""What pruning gives: zeros of each site in its last pass, and multiply-accumulates that could be skipped in all."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        macs: MACs of the backward passes of all sites so far: of each convolution's products with the gradient, for its
            weight and for its input.
        skipped: those of them with a gradient entry that is zero.
        last: by the name of each site what its last pass gave. Of all entries, ``natural zeros`` before pruning,
            ``zeros`` after it, and ``used zeros`` where the convolution's products use them; of those that are not zero
            by nature the share ``below`` the threshold; and that threshold by the one that the gradient asks for,
            ``threshold ratio``.
    """

    macs: int = 0
    skipped: int = 0
    last: dict[str, dict[str, float]] = field(default_factory=dict)

    def note_pruned(self, name: str, before: Tensor, after: Tensor, used: Tensor | None, determined: Tensor) -> None:
        """Note a site's gradient before and after pruning.

        Args:
            name: of the site.
            before: the gradient.
            after: what is left of it.
            used: the threshold it was pruned with; ``None`` if it was not pruned.
            determined: the threshold that it asks for itself.
        """
        noted = self.last[name] = {"natural zeros": _zeros(before), "zeros": _zeros(after)}
        if used is not None:
            small = before.abs() < used.to(before.dtype)
            count = max(int(before.count_nonzero()), 1)
            noted["below"] = 1 - int((~small).sum()) / count
            noted["threshold ratio"] = float(used.mean() / determined.mean())

    def note_used(self, name: str, gradient: Tensor, each: int) -> None:
        """Note the gradient that a convolution's products use.

        Args:
            name: of the site.
            gradient: at its output, ``(N, C_out, ...)``.
            each: MACs that each entry takes part in.
        """
        zeros = gradient.numel() - int(gradient.count_nonzero())
        self.macs += gradient.numel() * each
        self.skipped += zeros * each
        self.last.setdefault(name, {})["used zeros"] = zeros / gradient.numel()

    def records(self) -> dict[str, object]:
        """Return the shares of zeros by site, and of MACs in all, for a log."""
        found: dict[str, object] = {
            f"{what} {name}": share for name, noted in self.last.items() for what, share in noted.items()
        }
        if self.macs:
            found |= {"macs_backward": self.macs, "macs_skipped": self.skipped}
            found["density"] = 1 - self.skipped / self.macs
        return found


def _zeros(gradient: Tensor) -> float:
    """Return the share of entries that are zero."""
    return 1 - int(gradient.count_nonzero()) / max(gradient.numel(), 1)
