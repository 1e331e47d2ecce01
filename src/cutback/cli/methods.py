"""``cutback methods``: published methods that prune while a network trains."""

import importlib
import importlib.util
import inspect

from rich.table import Table

from cutback.cli import console, options

ROOM = "cutback.methods"
NONE_YET = "no methods that prune during training yet; cutback prune cuts once, ranking by --score (cutback scores)"
EPILOG = """\b
Examples:
  cutback methods
  cutback methods --json
"""


def methods(json: options.Json = False) -> None:
    """List the published methods that prune while a network trains."""
    found = _summaries()
    if json:
        console.print_json({"methods": [{"name": name, "summary": summary} for name, summary in found.items()]})
    elif not found:
        console.stdout().print(NONE_YET)
    else:
        table = Table("method", "what it is", box=None, pad_edge=False)
        for name, summary in found.items():
            table.add_row(name, summary)
        console.stdout().print(table)


def _summaries() -> dict[str, str]:
    """Return the first docstring line of each registered method; nothing while the package has no such room."""
    if importlib.util.find_spec(ROOM) is None:
        return {}
    registry = importlib.import_module(ROOM).methods
    return {name: (inspect.getdoc(registry.get(name)) or "").partition("\n")[0] for name in registry}
