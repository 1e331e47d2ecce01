"""The folder of a long run: what was asked for, a log, networks that are kept, and the last two checkpoints."""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from cutback.errors import CorruptFile, SaveError, UserMistake
from cutback.io.folder import write_folder
from cutback.io.tree import load_tree, save_tree

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

CONFIG_FILE = "config.json"
LOG_FILE = "log.jsonl"
CHECKPOINTS, NETWORKS = "checkpoints", "networks"
KEPT = 2
FORMAT, VERSION = "cutback run", 1


class RunFolder:
    """A run's folder, of which every file is whole at any instant; only the main process writes.

    Args:
        path: the folder; it must exist.

    Attributes:
        path: the folder.

    Raises:
        UserMistake: it is no folder of a run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / CONFIG_FILE).is_file():
            raise UserMistake(f"{path} holds no {CONFIG_FILE}; name a folder that cutback prune has written with --out")

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> "RunFolder":
        """Make the folder of a new run.

        Args:
            path: the folder; must not exist.
            config: what was asked for, for JSON.

        Raises:
            SaveError: it cannot be written, or there is one.
        """
        if path.exists():
            raise SaveError(f"{path} has appeared meanwhile; name another folder with --out")
        document = json.loads(json.dumps({"format": FORMAT, "version": VERSION, "config": config}))
        write_folder(path, {CONFIG_FILE: json.dumps({**document, "sha256": _seal(document)}, indent=1).encode()})
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for.

        Raises:
            CorruptFile: the file is damaged, or was changed since.
        """
        file = self.path / CONFIG_FILE
        try:
            document = json.loads(file.read_bytes())
            found, sealed = document.pop("sha256"), _seal(document)
            config = document["config"]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CorruptFile(f"{file} is truncated or damaged ({error}); start a new run with --out") from error
        if found != sealed:
            raise CorruptFile(
                f"{file} was changed since the run began, and a run goes on only as it was begun; undo the change, or "
                "start a new run with --out"
            )
        return config

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other processes that would go on with the same run, as far as the system can.

        Raises:
            UserMistake: another process holds it.
        """
        if fcntl is None:
            yield
            return
        with (self.path / CONFIG_FILE).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserMistake(
                    f"another process is at work on {self.path}; wait until it has ended, or end it"
                ) from error
            yield

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove all but the last two.

        Raises:
            SaveError: it cannot be written; those before it are untouched.
        """
        numbers = self._numbers()
        number = numbers[-1] + 1 if numbers else 1
        try:
            save_tree(state, self._checkpoint(number))
            for old in [*numbers, number][:-KEPT]:
                _remove(self._checkpoint(old))
        except (SaveError, OSError) as error:
            raise SaveError(
                f"checkpoint {number} of {self.path} could not be written: {error}. The checkpoints before it are "
                f"whole: make room, then go on with cutback resume {self.path}"
            ) from error

    def latest(self) -> dict[str, Any]:
        """Read the newest checkpoint, and remove what a killed process has left half-written.

        Raises:
            CorruptFile: there is none, or it is damaged.
        """
        for folder in (self.path / CHECKPOINTS, self.path / NETWORKS):
            for left in folder.glob(".*") if folder.is_dir() else ():
                shutil.rmtree(left, ignore_errors=True)
        numbers = self._numbers()
        if not numbers:
            raise CorruptFile(
                f"{self.path / CHECKPOINTS} holds no checkpoint any more; put them back, or start a new run with --out"
            )
        newest = self._checkpoint(numbers[-1])
        try:
            return load_tree(newest)
        except CorruptFile as error:
            before = f"to go on from {numbers[-2]}, the one before" if numbers[1:] else "and start a new run with --out"
            raise CorruptFile(f"{error}; copy it again, or remove {newest} {before}") from error

    def _checkpoint(self, number: int) -> Path:
        return self.path / CHECKPOINTS / f"{number:08d}"

    def _numbers(self) -> list[int]:
        folder = self.path / CHECKPOINTS
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []

    # ------------------------------------------------------------------------------------------------------- networks

    def keep(self, name: str, network: Mapping[str, Any]) -> None:
        """Keep a network of an earlier part of the run.

        Raises:
            SaveError: it cannot be written.
        """
        save_tree(network, self.path / NETWORKS / name)

    def kept(self, name: str) -> dict[str, Any]:
        """Return a network that was kept.

        Raises:
            CorruptFile: it is missing or damaged.
        """
        try:
            return load_tree(self.path / NETWORKS / name)
        except CorruptFile as error:
            raise CorruptFile(f"{error}; copy it again, or start a new run with --out") from error

    # ------------------------------------------------------------------------------------------------------------ log

    def log(self, event: str, **values: object) -> None:
        """Append a line to the log.

        Raises:
            SaveError: it cannot be written.
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        file = self.path / LOG_FILE
        try:
            with file.open("a", encoding="utf-8") as opened:
                opened.write(line + "\n")
        except OSError as error:
            raise SaveError(
                f"cannot write {file}: {error.strerror or error}; make room, then go on with cutback resume {self.path}"
            ) from error

    def events(self) -> list[dict[str, Any]]:
        """Return what was logged, one document a line."""
        return [json.loads(line) for line in (self.path / LOG_FILE).read_text(encoding="utf-8").splitlines()]

    @property
    def logged(self) -> int:
        """How many bytes the log has."""
        with contextlib.suppress(OSError):
            return (self.path / LOG_FILE).stat().st_size
        return 0

    def cut_log(self, length: int) -> None:
        """Drop what was logged after a checkpoint, which is about to be done again."""
        if self.logged > length:
            os.truncate(self.path / LOG_FILE, length)


def _seal(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _remove(folder: Path) -> None:
    """Remove a folder so that it is never seen half removed under its name."""
    going = folder.with_name(f".{folder.name}.going")
    folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)
