"""Random shifts, flips and resized crops: what they do to pictures, and how they are written."""

import pytest
import torch
from PIL import Image

from cutback.errors import UserMistake
from cutback.train.augmentation import Augmentation, parse_augmentation, random_shift, standard
from cutback.train.lazy import random_box


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_random_shift_moves_whole_pictures() -> None:
    images = torch.zeros(200, 2, 5, 7)
    images[:, :, 2, 3] = torch.tensor([1.0, 2.0])
    shifted = random_shift(images, 1, generator())
    assert shifted.shape == images.shape
    places = shifted[:, 0].flatten(1).argmax(1)
    assert {divmod(place, 7) for place in places.tolist()} == {
        (row, column) for row in (1, 2, 3) for column in (2, 3, 4)
    }
    assert torch.equal(shifted[:, 1], 2 * shifted[:, 0])


def test_the_border_has_a_value_a_channel() -> None:
    shifted = random_shift(torch.full((300, 2, 3, 3), 9.0), 1, generator(), border=[-1.0, -2.0])
    assert {tuple(pixel) for pixel in shifted.permute(0, 2, 3, 1).reshape(-1, 2).tolist()} == {(9, 9), (-1, -2)}


def test_a_flip_mirrors_half_of_the_pictures_left_to_right() -> None:
    images = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(1000, 1, 1, 1)
    flipped = Augmentation(flip=True)(images, generator())
    mirrored = torch.tensor([[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]])
    as_they_were = (flipped == images).flatten(1).all(1)
    assert (flipped == mirrored).flatten(1).all(1).tolist() == (~as_they_were).tolist()
    assert 430 < as_they_were.sum() < 570  # four and a half standard deviations


def test_the_same_generator_gives_the_same_pictures() -> None:
    images, augment = torch.randn(9, 3, 8, 8), Augmentation(shift=2, flip=True)
    assert torch.equal(augment(images, generator(1)), augment(images, generator(1)))
    assert not torch.equal(augment(images, generator(1)), augment(images, generator(2)))
    assert Augmentation()(images, generator()) is images


def test_what_is_usual_depends_on_colour_and_size() -> None:
    assert standard((3, 32, 32)) == Augmentation(shift=4, flip=True)
    assert standard((1, 28, 28)) == Augmentation()


@pytest.mark.parametrize("text", ["none", "shift:4", "flip", "shift:4,flip", "flip,resized-crop"])
def test_it_is_read_as_it_is_written(text: str) -> None:
    assert str(parse_augmentation(text)) == text
    assert parse_augmentation(str(parse_augmentation(text))) == parse_augmentation(text)


@pytest.mark.parametrize("text", ["", "shift", "shift:x", "shift:-1", "flip:2", "rotate", "none,flip", "flip,"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(
        UserMistake, match=r"cannot read the augmentation .*; write none, or some of shift:PIXELS, flip"
    ):
        parse_augmentation(text)


def test_a_random_box_has_the_area_and_shape_it_should() -> None:
    torch.manual_seed(0)
    shares, ratios = [], []
    for _ in range(2000):
        left, upper, right, lower = random_box(300, 400)
        assert 0 <= left < right <= 400
        assert 0 <= upper < lower <= 300
        shares.append((right - left) * (lower - upper) / 120_000)
        ratios.append((right - left) / (lower - upper))
    assert 0.079 < min(shares) < 0.1
    assert 0.9 < max(shares) <= 1
    assert 0.74 < min(ratios) < 0.76
    assert 1.32 < max(ratios) < 1.35
    # Where no draw fits in, the nearest ratio is taken from the centre.
    assert random_box(1000, 10) == (0, 493, 10, 506)
    assert Image.new("RGB", (10, 1000)).crop(random_box(1000, 10)).size == (10, 13)
