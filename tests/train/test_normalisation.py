"""What is done to pixels: the data's own figures, presets, numbers, and mistakes in them."""

import pytest
import torch

from cutback.errors import DataError
from cutback.train import load_data
from cutback.train.normalisation import PRESETS, check_normalisation, normalisation

PICTURES = torch.randint(256, (40, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_data_s_own_figures_are_those_of_all_pixels_of_a_channel() -> None:
    PICTURES[:, 2] = 51
    found = normalisation("data", PICTURES)
    for channel in range(2):
        pixels = [value / 255 for value in PICTURES[:, channel].flatten().tolist()]
        mean = sum(pixels) / len(pixels)
        deviation = (sum((pixel - mean) ** 2 for pixel in pixels) / len(pixels)) ** 0.5
        assert found.mean[channel] == pytest.approx(mean, rel=1e-5)
        assert found.std[channel] == pytest.approx(deviation, rel=1e-5)
    assert (found.mean[2], found.std[2]) == (pytest.approx(0.2), 1)
    normalised = found(PICTURES)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    assert normalisation(None, PICTURES) == found


def test_presets_and_numbers_are_used_as_they_are() -> None:
    image = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    assert normalisation("imagenet", image)(image).flatten().tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    )
    assert normalisation("half", image)(image).flatten().tolist() == [1, 1, 1]
    assert normalisation("none", image)(image).flatten().tolist() == [1, 1, 1]
    assert normalisation("0.5,0,1/0.5,1,2", image)(image).flatten().tolist() == [1, 1, 0]
    assert all(len(mean) == len(std) for mean, std in PRESETS.values())


def test_float_pictures_are_left_as_they_were() -> None:
    image = torch.full((1, 1, 2, 2), 0.5)
    assert normalisation("half", image)(image).sum() == 0
    assert image.sum() == 2


@pytest.mark.parametrize("text", ["imagnet", "0.5", "0.5/0", "0.5/0.1,0.2", "a/b", "/", "0.5/-1"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"cannot read the normalisation .*; write data, imagenet, cifar10"):
        check_normalisation(text)
    with pytest.raises(DataError, match=r"cannot read the normalisation"):
        load_data("digits", seed=0, normalise=text)


def test_a_preset_for_other_channels_is_refused() -> None:
    with pytest.raises(DataError, match=r"'imagenet' is of 3 channels, the pictures have 1; use data"):
        load_data("digits", seed=0, normalise="imagenet")
    assert load_data("digits", seed=0, normalise="half").mean == (0.5,)
