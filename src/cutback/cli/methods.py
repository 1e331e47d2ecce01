"""``cutback methods``: published methods that prune while a network trains."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cutback.cli import console, options
from cutback.methods import Description, describe
from cutback.methods import methods as registry

WIDTH = 300
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
  cutback methods taylor
  cutback methods --json

\b
--json has all of it: the paper, what the method needs beyond the training itself, and every setting with its default.
"""
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Tell all of this one, with its settings.")]


def methods(name: Name = None, json: options.Json = False) -> None:
    """List the published methods that prune while a network trains, with their paper and what becomes of a budget."""
    found = [describe(each) for each in (registry if name is None else [name])]
    if json:
        console.print_json({"methods": [asdict(method) for method in found]})
        return
    if name is not None:
        _tell(found[0])
        return
    table = Table("method", "budget", "what it is", "paper", box=None, pad_edge=False)
    for method in found:
        about = method.about
        paper = f"{about.authors}, {about.where}"
        table.add_row(method.name, BUDGETS[about.budget], method.summary, paper)
    console.stdout(WIDTH).print(table)


def _tell(method: Description) -> None:
    """Print all that a method says of itself."""
    about, out = method.about, console.stdout(WIDTH)
    out.print(f"{method.name}: {method.summary}\n{about.title} ({about.authors}, {about.where})", markup=False)
    needs = f"; needs {', '.join(about.needs)}" if about.needs else ""
    out.print(f"budget: {BUDGETS[about.budget]}{needs}\n", markup=False)
    table = Table("setting", "default", "what it is", box=None, pad_edge=False)
    for setting in method.settings:
        default = "(needed)" if setting.required else str(setting.default)
        table.add_row(setting.name, default, Text(setting.meaning))
    out.print(table)
