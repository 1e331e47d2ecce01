"""A run of ``cutback prune``: begun in a folder of its own, or gone on with from its last checkpoint."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import cutback
from cutback.cli.console import Reporter
from cutback.cli.job import Job
from cutback.cli.report import REPORT_FILE
from cutback.cli.request import Request
from cutback.cli.stages import Stages, State
from cutback.errors import CutbackError, UserMistake
from cutback.graph.architecture import hash_of
from cutback.train.launch import Launch, launched
from cutback.train.run_folder import RunFolder


def start_run(request: Request, reporter: Reporter) -> dict[str, Any] | None:
    """Carry out ``cutback prune``. Whatever is wrong with the request comes out before training starts.

    Args:
        request: what was asked for.
        reporter: told what is going on.

    Returns:
        The report, as written beside the model; ``None`` in processes other than the main one.

    Raises:
        CutbackError: the request cannot be carried out. Nothing was written, or what was written can be gone on with.
    """
    start = time.monotonic()
    request.check()
    training = request.training
    with launched(request.device, training.precision, timeout=request.timeout) as launch:
        reporter = reporter if launch.is_main else Reporter(quiet=True)
        job = Job.prepared(request, reporter, launch)
        if request.baseline_epochs or request.epochs_of_method or request.allocate == "sensitivity":
            with reporter.step("trying the cut on a copy"):
                job.try_out()
        above = [parent for parent in request.folder.absolute().parents if not parent.exists()]
        state = State()
        launch.from_main(lambda: _create(job))
        folder = RunFolder(request.folder)
        try:
            with _held(folder, launch), _told_how_to_go_on(reporter, request.folder, state):
                if launch.is_main:
                    folder.save(state.to_tree())
                return Stages(job, folder, state, start).run()
        except BaseException:
            if launch.is_main and not state.worth_keeping:
                _remove(request.folder, above)
            raise


def resume_run(path: Path, reporter: Reporter) -> dict[str, Any] | None:
    """Go on with a run from its last checkpoint.

    Args:
        path: the run's folder.
        reporter: told what is going on.

    Returns:
        The report; ``None`` in processes other than the main one.

    Raises:
        UserMistake: this is no folder of a run, or its data or model are others now.
        CorruptFile: a file of it is missing or damaged.
    """
    start = time.monotonic()
    folder = RunFolder(path.absolute())
    config = folder.config
    if (folder.path / REPORT_FILE).is_file():
        reporter.line(f"{path} is finished already")
        return json.loads((folder.path / REPORT_FILE).read_text(encoding="utf-8"))
    with _folder_of(config):
        request = Request.from_document(config["request"])
        if request.folder.absolute() != folder.path:
            request = dataclasses.replace(request, out=folder.path)
        with launched(request.device, request.training.precision, timeout=request.timeout) as launch:
            reporter = reporter if launch.is_main else Reporter(quiet=True)
            if launch.ranks != config["ranks"]:
                raise UserMistake(
                    f"{path} was begun among {config['ranks']} processes, not {launch.ranks}; resume it among as many"
                )
            with _held(folder, launch):
                state = State(**launch.from_main(folder.latest))
                _warn_of_other_bits(config, reporter)
                job = Job.prepared(request, reporter, launch)
                _check_same(config, _fingerprints(job))
                if launch.is_main:
                    folder.cut_log(state.logged)
                    folder.log("resumed", stage=state.stage)
                with _told_how_to_go_on(reporter, path, state):
                    return Stages(job, folder, state, start).run()


def _create(job: Job) -> None:
    """Make the folder of a new run."""
    config = {
        "request": job.request.to_document(),
        "folder": str(Path.cwd()),
        "ranks": job.launch.ranks,
        **_surroundings(),
        **_fingerprints(job),
    }
    RunFolder.create(job.request.folder, config)


def _remove(folder: Path, above: Sequence[Path]) -> None:
    """Remove the folder of a run in which nothing was trained yet, and the folders made for it."""
    shutil.rmtree(folder, ignore_errors=True)
    for parent in above:
        with contextlib.suppress(OSError):  # it holds something else
            parent.rmdir()


def _surroundings() -> dict[str, Any]:
    """Return what the last bits of results may depend on."""
    return {"torch": torch.__version__, "cutback": cutback.__version__, "threads": torch.get_num_threads()}


def _fingerprints(job: Job) -> dict[str, Any]:
    """Return what tells model and data from others."""
    data, weights = job.data, job.request.weights
    return {
        "architecture": hash_of(job.fresh()),
        "data": [len(data.train), len(data.validation), len(data.test), list(data.class_names), *data.mean, *data.std],
        "weights": None if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest(),
    }


def _check_same(config: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Refuse to go on with another model, other data or other weights."""
    for name, what in (("architecture", "model"), ("data", "data"), ("weights", "starting weights")):
        if config[name] != json.loads(json.dumps(found[name])):
            raise UserMistake(
                f"the {what} of this run changed since it began; put back what was there, or start a new run with --out"
            )


def _warn_of_other_bits(config: Mapping[str, Any], reporter: Reporter) -> None:
    for name, now in _surroundings().items():
        if config[name] != now:
            reporter.line(f"note: {name} was {config[name]} when the run began and is {now}; the last bits may differ")


@contextlib.contextmanager
def _folder_of(config: Mapping[str, Any]) -> Iterator[None]:
    """Work in the folder in which the run was begun, to which its paths refer, if it is there."""
    with contextlib.chdir(config["folder"]) if Path(config["folder"]).is_dir() else contextlib.nullcontext():
        yield


def _held(folder: RunFolder, launch: Launch) -> contextlib.AbstractContextManager[None]:
    """Hold the folder in the main process, which writes to it."""
    return folder.held() if launch.is_main else contextlib.nullcontext()


@contextlib.contextmanager
def _told_how_to_go_on(reporter: Reporter, folder: Path, state: State) -> Iterator[None]:
    """Say how to go on with a run that ends too early, where anything of it is worth that."""
    try:
        yield
    except (KeyboardInterrupt, CutbackError):
        if state.worth_keeping:
            reporter.line(f"what was done so far is kept; go on from there with: cutback resume {folder}")
        raise
