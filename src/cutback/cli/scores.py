"""``cutback scores``: what can rank channels."""

import inspect

from rich.table import Table

from cutback.cli import console, options
from cutback.scores import scores as registry

EPILOG = """\b
Examples:
  cutback scores
  cutback scores --json
"""


def scores(json: options.Json = False) -> None:
    """List the scores that --score takes: what ranks the channels."""
    found = {name: (inspect.getdoc(registry.get(name)) or "").partition("\n")[0] for name in registry}
    if json:
        console.print_json({"scores": [{"name": name, "summary": summary} for name, summary in found.items()]})
        return
    table = Table("score", "what it is", box=None, pad_edge=False)
    for name, summary in found.items():
        table.add_row(name, summary)
    console.stdout().print(table)
