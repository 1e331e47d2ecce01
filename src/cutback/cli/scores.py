"""``cutback scores``: what can rank channels."""

from dataclasses import asdict

from rich.table import Table

from cutback.cli import console, options
from cutback.scores import describe
from cutback.scores import scores as registry

WIDTH = 180
"""One line a score where that is no terminal."""
EPILOG = """\b
Examples:
  cutback scores
  cutback scores --json

\b
coupled: how a score puts together the channels that must go together. Where that is sum, it may be told otherwise:
l1:mean, l1:max, or l1:leader, where the projection of a shortcut (else the layer that begins the stream) decides alone.
B is the number of places at which a unit's gates stand.
"""


def scores(json: options.Json = False) -> None:
    """List the scores that --score takes: what ranks the channels, from which paper, and what it needs."""
    found = [describe(name) for name in registry]
    if json:
        console.print_json({"scores": [asdict(score) for score in found]})
        return
    table = Table("score", "needs", "coupled", "what it is", "source", box=None, pad_edge=False)
    for score in found:
        table.add_row(score.name, ", ".join(score.needs), score.coupled, score.summary, score.source)
    console.stdout(WIDTH).print(table)
