"""``cutback methods``: published methods that prune while a network trains."""

from dataclasses import asdict

from rich.table import Table

from cutback.cli import console, options
from cutback.methods import describe
from cutback.methods import methods as registry

WIDTH = 200
"""One line a method where that is no terminal."""
BUDGETS = {
    "hits": "met within 1 %",
    "stops_below": "stops below",
    "finds_width": "none: finds widths",
    "none": "none: cuts nothing",
}
EPILOG = """\b
Examples:
  cutback methods
  cutback methods --json

\b
--json has all of it: the paper, what the method needs beyond the training itself, and every setting with its default.
"""


def methods(json: options.Json = False) -> None:
    """List the published methods that prune while a network trains, with their paper and what becomes of a budget."""
    found = [describe(name) for name in registry]
    if json:
        console.print_json({"methods": [asdict(method) for method in found]})
        return
    table = Table("method", "budget", "what it is", "paper", box=None, pad_edge=False)
    for method in found:
        about = method.about
        paper = f"{about.authors}, {about.where}"
        table.add_row(method.name, BUDGETS[about.budget], method.summary, paper)
    console.stdout(WIDTH).print(table)
