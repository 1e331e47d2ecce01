"""New folders and files that appear whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

from cutback.errors import SaveError, UserMistake
from cutback.measure.setting import cache_folder


def check_new_folder(folder: Path) -> None:
    """Find out before any work starts whether a folder can be written.

    Raises:
        UserMistake: it exists, or may not be made.
    """
    if folder.exists() or folder.is_symlink():
        raise UserMistake(f"the output {folder} exists already; name another with --out or remove it")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserMistake(f"the output {folder} cannot be made: {above} is no folder you may write to; name another")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that gets its name only once the block has filled it; however the block ends, nothing else is left.

    Args:
        folder: the folder to make, with the folders above it.

    Yields:
        An empty folder beside it, to fill.

    Raises:
        SaveError: it cannot be written.
    """
    target = folder.absolute()
    staged = target.parent / f".{target.name}.{os.getpid()}.partial"
    made = [parent for parent in target.parents if not parent.exists()]
    try:
        staged.mkdir(parents=True)
        yield staged
        if target.exists():
            raise FileExistsError(None, "it appeared meanwhile")
        staged.rename(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(f"cannot write {folder}: {reason}; name a folder you may write to") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # It holds the result, or something else.
                parent.rmdir()


def check_file(file: Path, suffix: str, option: str) -> None:
    """Find out before any work starts whether a file can be written.

    Args:
        file: the file.
        suffix: the suffix its name must have, for instance ``".svg"``.
        option: the option that names it, for the message.

    Raises:
        UserMistake: it has another suffix, or may not be written.
    """
    if file.suffix.lower() != suffix:
        raise UserMistake(f"{option} writes {suffix[1:].upper()}: name a file that ends in {suffix}, not {file.name!r}")
    folder = file.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserMistake(f"{option} {file} cannot be written: {folder} is no folder you may write to; name another")
    if file.is_dir():
        raise UserMistake(f"{option} {file} is a folder; name a file")


def writable_cache(name: str) -> Path:
    """Return the folder of the user's cache that holds one kind of findings, made and found to be writable.

    Raises:
        UserMistake: it cannot be written; the message names ``XDG_CACHE_HOME``.
    """
    folder = cache_folder(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserMistake(f"{folder} cannot be written ({reason}); set XDG_CACHE_HOME to a folder that can") from error


def write_whole(file: Path, text: str) -> None:
    """Write a file that appears whole, in the place of an older one, or not at all.

    Raises:
        SaveError: it cannot be written.
    """
    staged = file.absolute().with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(f"cannot write {file}: {reason}; name a file you may write") from error
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
