"""A loop that goes on from a checkpoint, whatever its settings, ends with the same bits and records."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cutback
from cutback.io.tree import load_tree, save_tree
from cutback.methods import make_method
from cutback.train import Data, Loop, TrainSettings, Watch, classification, launched
from cutback.train.weights import weights_of
from tests.train import iterative

SETTINGS = {
    "plain": {},
    "average": {"average": 0.9, "clip": 0.5},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "one-cycle"},
    "micro-batches": {"accumulate": 2, "schedule": "step", "keep": "last"},
    "channels last": {"channels_last": True, "schedule": "constant", "label_smoothing": 0.1},
    "bf16": {"precision": "bf16"},
    "method": {"average": 0.5},
}
EPOCHS, BATCH = 2, 8


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Dropout(0.2), nn.Flatten(), nn.Linear(6 * 16, 3)),
    )


def data() -> Data:
    generator = torch.Generator().manual_seed(0)
    splits = (
        TensorDataset(torch.randn(n, 1, 8, 8, generator=generator), torch.randint(3, (n,), generator=generator))
        for n in (37, 20, 20)
    )
    return Data("small", *splits, num_classes=3, input_shape=(1, 8, 8))


@pytest.fixture(autouse=True)
def registered():
    iterative.register()
    yield
    iterative.unregister()


def run(name: str, *, state=None, checkpoint=None):
    settings = TrainSettings(**{"epochs": EPOCHS, "batch_size": BATCH, "checkpoint_steps": 1, **SETTINGS[name]})

    def method(loop: Loop):
        graph = cutback.trace(loop.wrapped, torch.zeros(2, 1, 8, 8))
        given = {"budget": "macs=50%", "optimizers": [loop.optimizer], "copies": loop.copies}
        return make_method(iterative.NAME, graph, settings={"steps": loop.steps * EPOCHS}, given=given)

    with launched("cpu", settings.precision) as launch:
        loop = Loop(
            network(),
            data(),
            settings,
            launch=launch,
            task=classification(settings.label_smoothing),
            make_method=method if name == "method" else None,
            state=state,
            watch=Watch(checkpoint=checkpoint),
        )
        result = loop.run()
        return loop, result


@pytest.mark.parametrize("name", SETTINGS)
def test_it_ends_alike_from_every_checkpoint(name, tmp_path) -> None:
    saved = []

    def checkpoint(loop: Loop) -> None:
        saved.append(tmp_path / str(len(saved)))
        save_tree(loop.state(), saved[-1])

    whole, result = run(name, checkpoint=checkpoint)
    expected = weights_of(whole.model)
    chosen = saved[:: 1 if name == "method" else 3]
    assert len(chosen) > 2
    for folder in chosen:
        torch.rand(3)  # the global random state at the start must not matter
        again, repeated = run(name, state=load_tree(folder))
        assert repeated == result
        found = weights_of(again.model)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), folder.name
    if name == "method":
        assert whole.method.finished
        assert expected["0.weight"].shape[0] < 8
        assert again.method.plan() == whole.method.plan()
        assert len(whole.optimizer.param_groups) == 1


def test_each_part_of_the_state_counts(tmp_path) -> None:
    """Without any one of its parts a run ends otherwise: the test above would notice."""
    saved = []

    def checkpoint(loop: Loop) -> None:
        if loop.state()["step"] == 2:
            saved.append(copy.deepcopy(loop.state()))

    whole, _ = run("average", checkpoint=checkpoint)
    expected = weights_of(whole.model)
    untouched = saved[-1]
    torch.manual_seed(99)
    other = {
        "optimizer": {**untouched["optimizer"], "state": {}},
        "scheduled": untouched["scheduled"] + 1,
        "step": untouched["step"] + 1,
        "average": {**untouched["average"], "updates": 0},
        "ranks": [
            {**untouched["ranks"][0], "random": {**untouched["ranks"][0]["random"], "torch": torch.get_rng_state()}}
        ],
    }
    for part, value in other.items():
        again, _ = run("average", state=copy.deepcopy({**untouched, part: value, "best": None}))
        found = weights_of(again.average.module)
        assert not all(torch.equal(found[key], value) for key, value in weights_of(whole.average.module).items()), part
    assert expected
