"""What all scores of activations share: batches, ranks, memory, folded batches."""

import gc

import pytest
import torch
from torch import Tensor, nn

import cutback
from cutback.errors import InvalidScore, UserMistake
from cutback.scores import APoZ, MeanL1, about, scores
from tests.helpers import image, randomised
from tests.scores.networks import Batches, assert_equal, numbers, outputs, projected, rated, traced
from tests.scores.two_ranks import rate
from tests.two_ranks import in_two_ranks

NAMES = [name for name in sorted(scores) if about(name).needs == ("activations",)]


def test_two_ranks_find_what_one_process_finds(tmp_path):
    """Also where one of them has no data."""
    in_two_ranks(rate, str(tmp_path), [2, 3], NAMES)
    for found in (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)):
        for name in NAMES:
            alone = {group: numbers(values) for group, values in rated(traced("projected"), name).items()}
            for divided in found:
                assert_equal(divided[name], alone, 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_number_of_batches(name):
    held = []

    class Loader:
        def __iter__(self):
            for number in range(30):
                if number in (3, 29):
                    gc.collect()
                    held.append(sum(found.numel() for found in gc.get_objects() if type(found) is Tensor))
                yield image(number), None

    rated(traced("projected"), scores.get(name)(Loader()))
    assert len(held) in (2, 4)
    assert held[0] == held[1]


def test_the_leader_is_the_projections_own_map():
    model = projected()
    layers = outputs("projected", model, Batches().pictures)["outer"]
    found = rated(model, MeanL1(Batches(), aggregate="leader"))
    assert numbers(found["outer"]) == pytest.approx(numbers(layers[1].abs().sum((2, 3)).mean(0)), rel=1e-5)


class Windows(nn.Module):
    """Folds quarters of the picture into the batch, and takes them apart again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        quarters = images.view(count, 3, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
        features = torch.relu(self.first(quarters.reshape(-1, 3, height // 2, width // 2)))
        return self.last(features).view(count, 4, 2, -1).mean((1, 3))


def test_windows_folded_into_the_batch_belong_to_their_picture():
    model = randomised(Windows())
    pictures = Batches().pictures
    maps = torch.stack(
        [
            torch.stack(
                [model.first(picture[None, :, top : top + 4, left : left + 4])[0] for top in (0, 4) for left in (0, 4)]
            )
            for picture in pictures
        ]
    )  # (N, 4, C, 4, 4)
    graph = cutback.trace(model, image())
    expected = maps.abs().sum((1, 3, 4)).mean(0)
    assert_equal(rated(graph, "mean-l1"), {"first": numbers(expected)}, 1e-5)
    spread = maps.transpose(1, 2).flatten(2).std(2, correction=0).mean(0)
    assert_equal(rated(graph, "mean-std"), {"first": numbers(spread)}, 1e-5)


@pytest.mark.parametrize(
    ("loader", "says"),
    [
        (None, "the loader is NoneType, no iterable"),
        ([(image(), None, 3)], r"the loader yields tuple of 3 items; let it yield \(inputs, labels\)"),
        ([3], "the loader yields int; let it yield"),
    ],
)
def test_what_is_no_batch_is_named(loader, says):
    with pytest.raises(UserMistake, match=says):
        rated(traced("flattened"), APoZ(loader))


@pytest.mark.parametrize("name", NAMES)
def test_activations_that_are_no_numbers_are_named(name):
    pictures = Batches().pictures.clone()
    pictures[1, 0, 2, 2] = float("inf")
    with pytest.raises(InvalidScore, match=r"NaN or infinity comes out of .*aten::.*; check the data"):
        rated(traced("flattened"), scores.get(name)([(pictures, None)]))


def test_data_is_not_part_of_what_a_score_prints():
    assert repr(APoZ(Batches(), aggregate="max")) == "APoZ(aggregate='max')"


def test_inputs_without_labels_and_by_keyword_are_batches_too():
    model = traced("flattened").model
    pictures = Batches().pictures
    expected = {group: numbers(values) for group, values in rated(traced("flattened"), "apoz").items()}
    for loader in ([pictures], [({"input": pictures}, None)], [{"input": pictures}]):
        graph = cutback.trace(model, {"input": image()} if not isinstance(loader[0], Tensor) else image())
        assert_equal(rated(graph, APoZ(loader)), expected)


def test_a_model_without_groups_needs_no_batches():
    assert rated(nn.Sequential(nn.Conv2d(3, 4, 1)), APoZ([])) == {}
