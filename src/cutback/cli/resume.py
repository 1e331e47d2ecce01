"""``cutback resume``: goes on with a run of ``cutback prune`` that was interrupted, killed or out of disk."""

from pathlib import Path
from typing import Annotated

import typer

from cutback.cli import console, options
from cutback.cli import training_options as training
from cutback.cli.report import print_report
from cutback.cli.run import resume_run

EPILOG = """\b
Examples:
  cutback resume runs/demo
  torchrun --nproc-per-node 8 -m cutback resume runs/resnet50
"""

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the run.", show_default=False)]


def resume(folder: Folder, quiet: training.Quiet = False, json: options.Json = False) -> None:
    """Go on with a run of cutback prune from its last checkpoint, and end it as it would have ended.

    On the CPU of one machine, with the same number of threads, the result has the same bytes. A run among several
    processes goes on among as many.
    """
    with console.stdout_kept_clean():
        report = resume_run(folder, console.Reporter(quiet=quiet))
    if report is not None and json:
        console.print_json(report)
    elif report is not None:
        print_report(report, folder)
