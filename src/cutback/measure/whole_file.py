"""Files of a cache, which several processes may write at once."""

import contextlib
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_whole(file: Path, text: str) -> None:
    """Write a file that appears whole, in the place of an older one, or not at all; its folder is made.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", suffix=".partial", delete=False) as opened:
        staged = Path(opened.name)
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(file)
    finally:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
