"""Folders that appear whole, in the place of an older one, or not at all."""

import os
import shutil
import tempfile
from pathlib import Path

from cutback.errors import SaveError


def write_folder(directory: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder so that, whenever the power fails, all or none of them are there.

    Raises:
        SaveError: it cannot be written.
    """
    target = directory.resolve()
    staged: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        staged.chmod(0o755)
        for name, content in files.items():
            with (staged / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _swap(staged, target)
    except OSError as error:
        raise SaveError(
            f"cannot write {directory}: {error.strerror or error}; name a folder you may write to"
        ) from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)


def _swap(staged: Path, target: Path) -> None:
    """Move the staged folder to its place; an older checkpoint there gives way, other files in it move over."""
    if target.exists():
        for path in target.iterdir():
            if not (staged / path.name).exists():
                if path.is_dir():
                    shutil.copytree(path, staged / path.name)
                else:
                    shutil.copy2(path, staged / path.name)
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)) / "old"
        target.rename(old)
        try:
            staged.rename(target)
        except BaseException:
            old.rename(target)
            raise
        finally:
            shutil.rmtree(old.parent, ignore_errors=True)
    else:
        staged.rename(target)
