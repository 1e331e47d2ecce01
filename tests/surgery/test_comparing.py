"""The measure of a proof: relative errors, and what is never equal."""

import pytest
import torch

from cutback.surgery.comparing import relative_error

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("expected", "found", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.0, 2.0], [0.0, 2.5], 0.25),
        ([0.0, 0.0], [0.0, 0.001], 0.1),  # below 0.01 the difference counts absolutely
        ([float("nan")], [float("nan")], INFINITE),
        ([INFINITE, 1.0], [INFINITE, 1.0], 0.0),
        ([INFINITE, 1.0], [-INFINITE, 1.0], INFINITE),
        ([INFINITE], [1.0], INFINITE),
        ([1.0], [1.0, 1.0], INFINITE),
    ],
)
def test_relative_errors(expected, found, error) -> None:
    assert relative_error(torch.tensor(expected), torch.tensor(found)) == pytest.approx(error)


def test_integers_must_be_the_same() -> None:
    assert relative_error(torch.tensor([3]), torch.tensor([3])) == 0
    assert relative_error(torch.tensor([3]), torch.tensor([4])) == INFINITE
