"""Rows of inputs times a layer's weight are its outputs, for every kind of convolution and linear layer."""

import numpy as np
import pytest
import torch
from torch import nn

from cutback.train.recovery.normal_equations import NormalEquations
from cutback.train.recovery.unfolding import (
    drawn_positions,
    fits,
    groups_of,
    is_layer,
    unfolded_inputs,
    unfolded_outputs,
)

LAYERS = [
    (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), (2, 4, 5, 5)),
    (nn.Conv2d(4, 8, 3, padding=1, groups=4), (2, 4, 5, 5)),
    (nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(2, 1)), (2, 4, 6, 7)),
    (nn.Conv2d(4, 6, 2, padding="valid"), (2, 4, 6, 7)),
    (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"), (2, 4, 6, 7)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", stride=2), (2, 4, 6, 7)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), (2, 4, 6, 7)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    (nn.Conv3d(4, 6, (2, 1, 3), stride=(1, 2, 1), padding=(0, 1, 2)), (2, 4, 4, 5, 3)),
    (nn.Linear(5, 3), (4, 5)),
    (nn.Linear(5, 3, bias=False), (2, 4, 3, 5)),
]


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")
@pytest.mark.parametrize("most", [1000, 5])
@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value).replace(" ", ""))
def test_rows_times_the_weight_are_the_outputs(layer, shape: tuple[int, ...], most: int) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = layer(inputs)
        positions = drawn_positions(layer, outputs, most, torch.Generator().manual_seed(1))
        rows, wanted = unfolded_inputs(layer, inputs, positions), unfolded_outputs(layer, outputs, positions)
        groups = groups_of(layer)
        found = rows @ layer.weight.reshape(groups, len(layer.weight) // groups, -1).transpose(1, 2)
        if layer.bias is not None:
            found += layer.bias.reshape(groups, 1, -1)
    assert is_layer(layer)
    assert fits(layer, inputs, outputs)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert rows.shape[1] == len(inputs) * len(positions)
    assert len(positions) <= most
    assert positions.unique().tolist() == positions.tolist()


def test_outputs_of_another_shape_do_not_fit() -> None:
    layer = nn.Conv2d(4, 6, 3)
    assert fits(layer, torch.zeros(2, 4, 5, 5), torch.zeros(2, 6, 3, 3))
    assert not fits(layer, torch.zeros(2, 4, 5, 5), torch.zeros(2, 6, 5, 5))
    assert not fits(layer, torch.zeros(4, 5, 5), torch.zeros(6, 3, 3))
    assert not fits(nn.Linear(3, 2), torch.zeros(3), torch.zeros(2))


def test_a_transposed_convolution_is_none_of_them() -> None:
    assert not is_layer(nn.ConvTranspose2d(2, 2, 3))
    assert not is_layer(nn.ReLU())


@pytest.mark.parametrize("intercept", [False, True])
def test_sums_over_batches_give_what_least_squares_over_all_rows_gives(intercept: bool) -> None:
    generator, ridge = np.random.default_rng(0), 0.1
    inputs, errors = generator.normal(2.0, 1.0, (2, 50, 4)), generator.normal(1.0, 1.0, (2, 50, 3))
    equations = NormalEquations(intercept)
    for part in (slice(0, 20), slice(20, 50)):
        equations.add(torch.tensor(inputs[:, part]), torch.tensor(errors[:, part]))
    change, constant, left = equations.solve(ridge)
    expected_left = 0.0
    for group in range(2):
        a, e = inputs[group], errors[group]
        if intercept:
            a, e = a - a.mean(0), e - e.mean(0)
        penalty = ridge * np.mean([sum(value**2 for value in column) for column in a.T])
        # A ridge is least squares on further rows, which ask each weight to be 0.
        solution = np.linalg.lstsq(
            np.vstack([a, np.sqrt(penalty) * np.eye(4)]), np.vstack([e, np.zeros((4, 3))]), rcond=None
        )[0]
        np.testing.assert_allclose(change[group].T, solution, rtol=1e-9, atol=1e-12)
        offset = errors[group].mean(0) - inputs[group].mean(0) @ solution if intercept else np.zeros(3)
        np.testing.assert_allclose(constant[group], offset, rtol=1e-9, atol=1e-12)
        expected_left += ((errors[group] - inputs[group] @ solution - offset) ** 2).sum()
    assert left == pytest.approx(expected_left, rel=1e-9)


def test_inputs_that_never_change_get_no_weight() -> None:
    equations = NormalEquations(intercept=True)
    equations.add(torch.ones(1, 9, 2), torch.full((1, 9, 1), 3.0))
    change, constant, left = equations.solve(1e-4)
    assert change.tolist() == [[[0.0, 0.0]]]
    assert constant.tolist() == [[3.0]]
    assert left == 0
