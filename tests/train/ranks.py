"""What each process of a test among several does; a module of its own, so that processes can import it."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import cutback
from cutback.errors import CutbackError
from cutback.methods import make_method
from cutback.train import Data, Loop, TrainSettings, classification, launched
from cutback.train.weights import weights_of
from tests.resuming.processes import forking
from tests.train import iterative

PICTURES, CLASSES, EPOCHS = 128, 4, 3


def in_processes(
    count: int, work: Callable[..., None], *arguments: object, until: Callable[[], bool] = lambda: False
) -> list[int | None]:
    """Do work in several processes that know of each other as a launcher would tell.

    Args:
        count: how many.
        work: what each does.
        *arguments: of the work.
        until: all are killed as soon as this holds; also 5 seconds after the first has ended, and after 120 in all.

    Returns:
        Their exit codes, ``None`` for those that had to be killed.
    """
    context = forking()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    processes = [context.Process(target=_in_one, args=(rank, count, port, work, arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    end = time.monotonic() + 120
    while any(process.is_alive() for process in processes) and time.monotonic() < end and not until():
        if not all(process.is_alive() for process in processes):
            end = min(end, time.monotonic() + 5)
        time.sleep(0.002)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def _in_one(rank: int, count: int, port: int, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(1)
    iterative.register()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    work(*arguments)


def network(*, norm: bool) -> nn.Module:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, CLASSES))


def data() -> Data:
    """Pictures with a bright row that tells their class, in noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3 * PICTURES) % CLASSES
    pictures = torch.randn(len(labels), 1, 8, 8, generator=generator)
    pictures[torch.arange(len(labels)), 0, 2 * labels] += 2
    splits = (TensorDataset(*pair) for pair in zip(pictures.split(PICTURES), labels.split(PICTURES), strict=True))
    return Data("rows", *splits, num_classes=CLASSES, input_shape=(1, 8, 8))


def train(folder: str, *, norm: bool, prune: bool) -> None:
    """Train among all processes; each writes down what it has."""
    settings = TrainSettings(epochs=EPOCHS, batch_size=16, average=0.5, clip=2.0, keep="last")
    with launched() as launch:
        loop = Loop(
            network(norm=norm),
            data(),
            settings,
            launch=launch,
            task=classification(),
            make_method=_method if prune else None,
        )
        result = loop.run()
        plan = loop.method.plan() if loop.method else None
        found = {
            "ranks": launch.ranks,
            "validation": result.last,
            "losses": [epoch.train_loss for epoch in result.epochs],
            "plan": plan.to_json() if plan else None,
            "weights": weights_of(loop.model),
        }
        torch.save(found, f"{folder}/rank{launch.rank}.pt")


def _method(loop: Loop):
    graph = cutback.trace(loop.wrapped, torch.zeros(2, 1, 8, 8))
    given = {"budget": "macs=50%", "optimizers": [loop.optimizer], "copies": loop.copies}
    return make_method(iterative.NAME, graph, settings={"steps": loop.steps * EPOCHS}, given=given)


class Failing(TensorDataset):
    """Pictures of which one process cannot read some."""

    how = ""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if self.how and os.environ["RANK"] == "1" and index > PICTURES - 4:
            if self.how == "raises":
                raise OSError("the disk is gone")
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(100)
        return super().__getitem__(index)


def fail(folder: str, how: str) -> None:
    """Train among all processes, of which one fails; write down how it ended here."""
    whole = data()
    split = Failing(*whole.train.tensors)
    split.how = how
    told = Data("rows", split, whole.validation, whole.test, num_classes=CLASSES, input_shape=(1, 8, 8))
    rank, start = os.environ["RANK"], time.monotonic()
    try:
        with launched(timeout=4) as launch:
            settings = TrainSettings(epochs=EPOCHS, batch_size=16)
            Loop(network(norm=True), told, settings, launch=launch, task=classification()).run()
    except CutbackError as error:
        text = f"{time.monotonic() - start:.1f} {type(error).__name__}: {error}"
        Path(folder, f"rank{rank}.txt").write_text(text, encoding="utf-8")
