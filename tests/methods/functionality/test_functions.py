"""Pictures of what filters look for, and clusters of them, on planted repeats."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import nn

import cutback
from cutback.methods.activations import looked_at
from cutback.methods.functionality.ascent import Ascent
from cutback.methods.functionality.clustering import Clustering, clustered, k_means, renumbered, silhouette
from cutback.methods.functionality.looking import Look, looks, passes_of
from cutback.methods.functionality.sight import Sight
from tests.helpers import image, randomised, residual
from tests.methods.functionality.planted import SIZE, by_hand, planted, unit_vectors

SEEDS = range(3)


def look(model: nn.Module, group: str = "2", **settings) -> Look:
    graph = cutback.trace(model, image(0, (2, 3, SIZE, SIZE)))
    with looked_at(graph):
        return looks(graph, {group: None}, Ascent(**settings))[group]


@pytest.fixture(scope="module")
def planted_looks():
    """Networks of three seeds with noise, the function of each filter, and what the filters look for."""
    found = [planted(seed, 0.1) for seed in SEEDS]
    return [(model, truth, look(model)) for model, truth in found]


def test_the_picture_is_that_of_a_plain_loop_on_the_part_that_is_seen(planted_looks) -> None:
    model, _, found = planted_looks[0]
    (sight,) = found.sights
    assert sight == Sight((4, 9, 4, 9), (0, 5, 0, 5), (2, 2))
    assert torch.allclose(found.pictures[[0, 5, 9]], by_hand(model, [0, 5, 9]), atol=1e-3)
    (functions,) = found.functions
    assert (functions.end > functions.start).all()
    assert not found.dead.any()


def test_the_scale_of_a_filter_does_not_matter(planted_looks) -> None:
    model, _ = planted(0, 0.1)
    with torch.no_grad():
        model[2].weight.mul_(7.3)
    assert (look(model).pictures - planted_looks[0][2].pictures).abs().max() <= 1e-4


def test_repeats_are_found_however_they_are_scaled(planted_looks) -> None:
    how = Clustering()
    for model, truth, found in planted_looks:
        vectors = found.vectors.numpy()
        fixed = k_means(vectors, 5, how, np.random.default_rng(0))
        assert adjusted_rand_score(truth, fixed) >= 0.95
        labels = clustered(vectors, how)
        assert labels.max() == 4
        assert adjusted_rand_score(truth, labels) >= 0.9
        norms = model[2].weight.detach().abs().sum((1, 2, 3)).tolist()
        by_norm = np.argsort(np.argsort(norms)) * 5 // len(norms)
        assert adjusted_rand_score(truth, by_norm) < 0.5, "the norm does not tell"


def test_an_opposite_function_is_another_one(planted_looks) -> None:
    for _, truth, found in planted_looks:
        vectors, flipped = found.vectors, truth.index(4)
        for unit in (unit for unit, function in enumerate(truth) if function == 0):
            assert float(vectors[flipped] @ vectors[unit]) < 0


def test_means_over_the_map_and_beginnings_of_their_own_tell_less() -> None:
    how, right, wrong = Clustering(), [], []
    for seed in (0, 1):
        model, truth = planted(seed, 0.3)
        generator = np.random.default_rng(0)
        right.append(adjusted_rand_score(truth, k_means(look(model).vectors.numpy(), 5, how, generator)))
        other = unit_vectors(by_hand(model, range(13), steps=20, middle=False, shared=False)).numpy()
        wrong.append(adjusted_rand_score(truth, k_means(other, 5, how, generator)))
    assert np.mean(right) >= 0.9
    assert np.mean(wrong) <= np.mean(right) - 0.1


def test_dead_filters_are_told() -> None:
    model, _ = planted(0)
    with torch.no_grad():
        model[2].weight[[3, 7]] = 0.0
    assert look(model).dead.nonzero().flatten().tolist() == [3, 7]


def test_a_negative_scale_of_a_batch_norm_turns_the_picture_around() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ).eval()
    with torch.no_grad():
        model[0].weight[1], model[1].weight[1] = model[0].weight[0], -1.0
    vectors = look(model, "0").vectors
    assert float(vectors[0] @ vectors[1]) < -0.9


def test_strides_are_cropped_to_whole_ones_and_global_layers_are_seen_whole() -> None:
    strided = randomised(
        nn.Sequential(
            *(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
    )
    graph = cutback.trace(strided.eval(), image(0, (2, 3, 32, 32)))
    with looked_at(graph):
        (sight,) = looks(graph, {"2": None}, Ascent(steps=1))["2"].sights
    height = sight.seen[1] - sight.seen[0]
    assert height == 7
    assert sight.crop[0] % 4 == 0
    assert sight.crop[1] - sight.crop[0] < 32

    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6), nn.Conv2d(6, 5, 1)

        def forward(self, images):
            maps = self.first(images).relu()
            return self.last(maps * self.gate(maps.mean((2, 3))).sigmoid()[..., None, None]).relu().mean((2, 3))

    graph = cutback.trace(nn.Sequential(Squeezed(), nn.Linear(5, 4)).eval(), image(0, (2, 3, 16, 16)))
    with looked_at(graph):
        found = looks(graph, {"0.last": None}, Ascent(steps=1))["0.last"]
    assert found.sights[0].crop == (0, 16, 0, 16)
    assert found.pictures.shape == (5, 3, 16, 16)


def test_layers_of_pixels_in_a_line_and_streams_are_looked_at_too() -> None:
    graph = cutback.trace(residual().eval(), image())
    with looked_at(graph):
        found = looks(graph, {"stem": None, "inner": None}, Ascent(steps=2))
    assert len(found["stem"].functions) > 1, "wherever a block adds to the stream"
    lengths = found["stem"].vectors.norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-9)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 6), nn.ReLU(), nn.Linear(6, 4)).eval()
    graph = cutback.trace(flat, image())
    with looked_at(graph):
        assert looks(graph, {"1": None}, Ascent(steps=2))["1"].pictures.shape == (6, 3, 8, 8)
    assert passes_of(graph, ["1"], Ascent(steps=2)) == 6 * 4


def test_deeper_layers_are_smoothed_and_moved_the_same_way_each_time() -> None:
    layers = [layer for width in (4, 4, 4, 5) for layer in (nn.Conv2d(3 if not width else 4, width, 3, padding=1),)]
    layers[0] = nn.Conv2d(3, 4, 3, padding=1)
    model = nn.Sequential(*(m for layer in layers for m in (layer, nn.ReLU())), nn.Conv2d(5, 4, 1), nn.Flatten()).eval()
    first, again = (look(model, "6", steps=4).pictures for _ in range(2))
    plain = look(model, "6", steps=4, variation=0.0, jitter=0).pictures
    assert torch.equal(first, again)
    assert not torch.equal(first, plain)


def test_silhouettes_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(30, 5))
    for labels in (generator.integers(4, size=30), np.repeat([0, 1, 2], 10), np.append(np.zeros(29, int), 1)):
        assert silhouette(points, labels) == pytest.approx(silhouette_score(points, labels))


def test_loose_clusters_are_no_clusters_and_labels_count_from_the_first() -> None:
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(8, 400))
    vectors -= vectors.mean(1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert clustered(vectors, Clustering()).tolist() == list(range(8))
    assert renumbered(np.array([7, 2, 7, 0])).tolist() == [0, 1, 0, 2]
    wide = np.repeat(generator.normal(size=(3, 4000)), 3, axis=0)
    assert (
        clustered(wide / np.linalg.norm(wide, axis=1, keepdims=True), Clustering()).tolist()
        == [0] * 3 + [1] * 3 + [2] * 3
    )
    assert clustered(vectors[:1], Clustering()).tolist() == [0]
