"""The training loop: it learns, repeats itself by seed, restores what it touched and refuses what does not fit."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from cutback.errors import DataError, UserMistake
from cutback.train import Data, FitResult, TrainingDiverged, evaluate, fit, load_data


class SmallNet(nn.Module):
    """A residual block, dropout and a head; two maximum poolings are enough for 8x8 pictures."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(256, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        return self.head(features + self.block(features))


class Untidy(Dataset):
    """A user's dataset: no tensors to index, Python integers as labels, random augmentation from three libraries."""

    def __init__(self, split: TensorDataset) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.split[index]
        return image + 0.01 * (random.random() + np.random.rand() + torch.rand(())), int(label)  # noqa: NPY002


def small_net(**options: int) -> SmallNet:
    torch.manual_seed(0)
    return SmallNet(**options)


def small_data(labels: Tensor | None = None) -> Data:
    images = torch.randn(33, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    split = TensorDataset(images, torch.arange(33) % 3 if labels is None else labels)
    return Data("small", split, split, split, num_classes=3, input_shape=(1, 8, 8))


def weights(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


def test_it_learns_and_keeps_the_best_epoch() -> None:
    data, model, told = load_data("digits", seed=0), small_net(), []
    model.block.eval()
    result = fit(model, data, epochs=6, seed=0, progress=lambda *step: told.append(step))
    validations = [epoch.validation for epoch in result.epochs]
    assert result.chosen == max(validations)
    assert validations[result.chosen_epoch - 1] == result.chosen == evaluate(model, data.validation).top1
    assert result.chosen not in validations[result.chosen_epoch :]
    assert FitResult.from_document(json.loads(json.dumps(result.to_document()))) == result
    assert (result.last, [epoch.number for epoch in result.epochs]) == (validations[-1], list(range(1, 7)))
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
    assert evaluate(model, data.test).top1 > 0.93
    assert [done for done, _, _ in told] == list(range(1, 6 * 17 + 1))
    assert {total for _, total, _ in told} == {6 * 17}
    assert model.stem.training
    assert not model.block.training


@pytest.mark.parametrize("untidy", [False, True])
def test_a_seed_repeats_and_the_global_random_states_are_untouched(untidy: bool) -> None:
    data = small_data()
    if untidy:
        data = dataclasses.replace(data, train=Untidy(data.train))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    models = []
    for seed in (1, 1, 2):
        models.append(small_net())
        torch.set_rng_state(before[0])
        fit(models[-1], data, epochs=2, seed=seed, batch_size=16)
    assert all(torch.equal(a, b) for a, b in zip(weights(models[0]), weights(models[1]), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(models[0]), weights(models[2]), strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


def test_no_epochs_and_an_interrupt_leave_the_best_weights() -> None:
    model, data = small_net(), small_data()
    found = [tensor.clone() for tensor in weights(model)]
    result = fit(model, data, epochs=0, seed=0)
    assert (result.epochs, result.chosen_epoch, result.chosen) == ((), 0, result.start)

    def interrupt(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model.eval(), data, epochs=1, seed=0, progress=interrupt)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), found, strict=True))
    assert not model.head.training


def test_a_diverging_run_says_to_lower_the_learning_rate() -> None:
    model = small_net()
    with pytest.raises(TrainingDiverged, match=r"lower the learning rate \(now 1e\+30, try 1e\+29\)"):
        fit(model, small_data(), epochs=5, seed=0, learning_rate=1e30)
    assert all(tensor.isfinite().all() for tensor in weights(model))


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"'small' has 3 classes but the model only 2 outputs; .*--num-classes 3"):
        fit(small_net(num_classes=2), small_data(), epochs=1, seed=0)
    with pytest.raises(DataError, match=r"label 7 but the model only 3 outputs; .*--num-classes 8"):
        fit(small_net(num_classes=3), small_data(torch.full((33,), 7)), epochs=1, seed=0)
    with pytest.raises(DataError, match="count classes from 0"):
        evaluate(small_net(), small_data(torch.arange(33) - 1).test)
    with pytest.raises(DataError, match="no pictures to evaluate on"):
        evaluate(small_net(), TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0)))
    with pytest.raises(DataError, match="does not accept the 1x8x8 pictures of 'small'"):
        fit(nn.Conv2d(3, 3, 1), small_data(), epochs=1, seed=0)
    with pytest.raises(DataError, match=r"output has shape \(2, 4, 8, 8\)"):
        fit(nn.Conv2d(1, 4, 1), small_data(), epochs=1, seed=0)
    with pytest.raises(UserMistake, match="no parameters that require a gradient"):
        fit(small_net().requires_grad_(False), small_data(), epochs=1, seed=0)
    with pytest.raises(UserMistake, match="learning rate > 0"):
        fit(small_net(), small_data(), epochs=1, seed=0, learning_rate=-1)


def test_evaluation_is_exact_and_does_not_depend_on_how_a_split_is_read() -> None:
    model, data = small_net(), small_data()
    model.block.eval()
    accuracy = evaluate(model, data.test, batch_size=10)
    assert model.stem.training
    assert not model.block.training
    outputs, labels = model.eval()(data.test[:][0]), data.test[:][1]
    assert accuracy.top1 == (outputs.argmax(1) == labels).sum().item() / 33
    assert accuracy.loss == pytest.approx(nn.functional.cross_entropy(outputs, labels).item(), rel=1e-5)
    state = torch.get_rng_state()
    listed = evaluate(model, [(image, int(label)) for image, label in data.test], batch_size=7)
    assert listed.top1 == accuracy.top1
    assert listed.loss == pytest.approx(accuracy.loss)
    assert torch.equal(torch.get_rng_state(), state)
