"""The example of a task that is no classification: its data, its losses and its metric."""

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cutback.train.user_code import load_function

FILE = Path(__file__).resolve().parents[2] / "examples" / "detection.py"
CANVASES, PRECISION = (str(FILE.with_name(name)) for name in ("digit_canvases.py", "average_precision.py"))


def of(file: str | Path, name: str):
    return load_function(f"{file}:{name}")


def test_digits_lie_in_their_boxes_on_canvases() -> None:
    digits = torch.zeros(10, 28, 28)
    for number in range(10):
        digits[number, 4:24, 8 : 10 + number] = 1
    made = of(CANVASES, "canvases")
    images, targets = made(30, digits, torch.arange(10), seed=1).tensors
    again, _ = made(30, digits, torch.arange(10), seed=1).tensors
    assert torch.equal(images, again)
    counts = (targets[:, :, 4] >= 0).sum(1)
    assert counts.min() >= 1
    assert counts.max() > 2
    for image, target in zip(images, targets, strict=True):
        outside = torch.ones(64, 64, dtype=torch.bool)
        for left, top, right, bottom, label in target[target[:, 4] >= 0].tolist():
            assert 0 <= left < right <= 64
            assert 0 <= top < bottom <= 64
            assert 12 <= bottom - top <= 36
            drawn = max(3, round((bottom - top) * (2 + label) / 20))
            assert right - left == drawn
            assert image[0, int(top) : int(bottom), int(left) : int(right)].mean() > 0.8
            outside[int(top) : int(bottom), int(left) : int(right)] = False
        assert image[0][outside].abs().mean() < 0.2


def test_no_digit_is_in_two_splits() -> None:
    splits = of(CANVASES, "digits")()
    assert list(splits) == ["train", "validation", "test"]
    seen = [{picture.numpy().tobytes() for picture in images[:1500]} for images, _ in splits.values()]
    assert all(len(images) == len(labels) > 300 for images, labels in splits.values())
    assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])


def test_anchors_are_assigned_by_overlap_and_every_digit_has_one() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [20, 20, 30, 24.5], [50, 50, 60, 60]])
    things = torch.tensor([[0.0, 0, 10, 10, 7], [20, 20, 30, 30, 3], [50, 50, 52, 52, 1]])
    found = of(FILE, "assigned")(boxes, things)
    assert found.tolist() == [0, 0, 1, -2, 2]  # 0.45 is neither; the last thing's best anchor overlaps it by 0.04
    assert of(FILE, "assigned")(boxes, things[:0]).tolist() == [-1] * 5


def test_the_focal_loss_is_that_of_each_logit() -> None:
    logits, wanted = torch.tensor([[0.5, -2.0], [3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = 0.0
    for logit, right in zip(logits.flatten().tolist(), wanted.flatten().tolist(), strict=True):
        chance = 1 / (1 + math.exp(-logit))
        chance, weight = (chance, 0.25) if right else (1 - chance, 0.75)
        expected -= weight * (1 - chance) ** 2 * math.log(chance)
    assert float(of(FILE, "focal")(logits, wanted)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_low_for_what_is_right_and_falls_on_a_wrong_class_or_box() -> None:
    loss, anchors = of(FILE, "loss"), load_function(f"{FILE}:anchors")(64, 64)
    target = torch.full((1, 4, 5), -1.0)
    target[0, 0] = torch.tensor([*anchors[500].tolist(), 4.0])
    thing = of(FILE, "assigned")(anchors, target[0, :1])
    logits, deltas = torch.full((1, len(anchors), 10), -20.0), torch.zeros(1, len(anchors), 4)
    logits[0, thing == 0, 4] = 20.0
    encoded = load_function(f"{FILE}:encoded")
    deltas[0, thing == 0] = encoded(target[0, :1, :4].expand(int((thing == 0).sum()), 4), anchors[thing == 0])
    assert float(loss((logits, deltas), target)) < 1e-6
    moved = deltas.clone()
    moved[0, 500] += 1.0
    positive = int((thing == 0).sum())
    assert float(loss((logits, moved), target)) == pytest.approx(4 * (1 - 0.11 / 2) / positive, rel=1e-4)
    wrong = logits.clone()
    wrong[0, 500, 4] = -20.0
    assert float(loss((wrong, deltas), target)) == pytest.approx(0.25 * 20 / positive, rel=1e-4)
    nothing = torch.full((1, 4, 5), -1.0)
    assert float(loss((torch.full_like(logits, -20.0), deltas), nothing)) < 1e-6


def found_and_true(seed: int) -> tuple[list, list]:
    """Return things in six images, and what is found of them: some moved, some twice, some of another class."""
    generator = torch.Generator().manual_seed(seed)
    found, true = [], []
    for number in range(6):
        count = number % 4
        corner = torch.rand(count, 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + 6 + 20 * torch.rand(count, 2, generator=generator)], 1)
        labels = torch.randint(3, (count,), generator=generator)
        true.append((boxes, labels))
        twice = torch.cat([boxes, boxes, torch.tensor([[1.0, 1, 9, 9]])])
        moved = twice + 2 * torch.randn(twice.shape, generator=generator)
        classes = torch.cat([labels, labels.roll(1), torch.tensor([0])])
        found.append((moved, torch.rand(len(moved), generator=generator), classes))
    return found, true


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_average_precision_is_that_of_torchmetrics(seed, monkeypatch) -> None:
    reference = pytest.importorskip("torchmetrics.detection._mean_ap", reason="torchmetrics is not installed")
    if not reference._PYCOCOTOOLS_AVAILABLE:  # of which it only uses, and imports, what segmentations need
        monkeypatch.setattr(reference, "_PYCOCOTOOLS_AVAILABLE", True)
        for name in ("pycocotools", "pycocotools.mask"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    found, true = found_and_true(seed)
    metric = reference.MeanAveragePrecision()
    metric.update(
        [{"boxes": b, "scores": s, "labels": c} for b, s, c in found],
        [{"boxes": b, "labels": c} for b, c in true],
    )
    expected = float(metric.compute()["map"])
    assert 0.1 < expected < 0.9
    assert of(PRECISION, "mean_average_precision")(found, true) == pytest.approx(expected, abs=1e-6)


def test_average_precision_of_a_case_worked_out_by_hand() -> None:
    thing = torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 30, 30]])
    true = [(thing, torch.tensor([0, 0]))]
    found = [(thing[[0, 0, 1]], torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]))]
    # Right, wrong (found already), right: recall to 0.5 at precision 1 (51 of 101 points), the rest at 2/3.
    expected = (51 + 50 * 2 / 3) / 101
    assert of(PRECISION, "mean_average_precision")(found, true, (0.5,)) == pytest.approx(expected)
    assert of(PRECISION, "mean_average_precision")([(thing[:0], torch.tensor([]), torch.tensor([]))], true) == 0
