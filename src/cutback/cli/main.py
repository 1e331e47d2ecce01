"""The command ``cutback``: its sub-commands, its exit codes, and how it ends when something is wrong."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import cutback
from cutback.cli import check, correlate, methods, prune, resume, scores, sensitivity
from cutback.errors import CutbackError, NotEquivalent

DONE, MISTAKE, INTERRUPTED = 0, 2, 130
EPILOG = """\b
Examples:
  cutback check cutback:resnet20
  cutback prune cutback:resnet20 --data digits --budget macs=50% --finetune 15 --out runs/demo
  cutback prune my.py:make --data imagefolder:pictures --input 3x32x32 --budget params=40%
"""


def run() -> None:
    """Carry out the command line of this process and exit with its code."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line.

    Args:
        arguments: what follows ``cutback``.

    Returns:
        The exit code: 0 done, 2 the user's mistake (one line on stderr says what to do), 130 interrupted. A bug is not
        caught: its traceback ends the process with 1.
    """
    try:
        code = _app()(
            args=list(arguments) or ["--help"], prog_name="cutback", standalone_mode=False, obj=tuple(arguments)
        )
    except NotEquivalent:
        raise
    except CutbackError as error:
        return _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        # Typer's own usage errors: it brings their classes along under a private name.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "cutback"
        return _fail(f"{describe().rstrip('.')}; see {path} --help")
    if code == INTERRUPTED:
        print("interrupted; nothing is left half-written", file=sys.stderr)
    return code if isinstance(code, int) else DONE


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return MISTAKE


def _app() -> typer.Typer:
    app = typer.Typer(
        help="Make a trained convolutional network physically smaller, and prove that it was done correctly.",
        epilog=EPILOG,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_root)
    app.command(epilog=prune.EPILOG)(prune.prune)
    app.command(epilog=resume.EPILOG)(resume.resume)
    app.command(epilog=sensitivity.EPILOG)(sensitivity.sensitivity)
    app.command(epilog=correlate.EPILOG)(correlate.correlate)
    app.command(epilog=check.EPILOG)(check.check)
    app.command(epilog=scores.EPILOG)(scores.scores)
    app.command(epilog=methods.EPILOG)(methods.methods)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cutback {cutback.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
