"""How long work tells its caller how far it is."""

from typing import Protocol


class Progress(Protocol):
    """A callback that draws progress; the code that calls it prints nothing itself."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Take note that ``done`` of ``total`` steps are finished; ``text`` says in a few words what is going on."""
