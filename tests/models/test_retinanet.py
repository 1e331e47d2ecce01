"""The small RetinaNet: what it returns, what is coupled in it, and that it is cut as a whole."""

import pytest
import torch

import cutback
from cutback.models import build
from cutback.models.retinanet import ANCHORS, STRIDES, anchors, detections


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return cutback.trace(build("retinanet"), torch.randn(1, 1, 64, 64))


def test_every_anchor_gets_logits_and_deltas_in_the_anchors_order(graph) -> None:
    model = graph.model.eval()
    logits, deltas = model(torch.randn(2, 1, 64, 64))
    boxes = anchors(64, 64)
    assert logits.shape == (2, len(boxes), 10)
    assert deltas.shape == (2, len(boxes), 4)
    assert len(boxes) == ANCHORS * sum((64 // stride) ** 2 for stride in STRIDES)
    # The background's logits differ where the image does: around that place, at every level.
    image = torch.zeros(1, 1, 64, 64)
    image[..., 40:48, 8:16] = 5
    with torch.no_grad():
        change = (model(image)[0] - model(torch.zeros(1, 1, 64, 64))[0]).abs().sum(2)[0]
    far = (boxes[:, :2] + boxes[:, 2:]) / 2 - torch.tensor([12.0, 44.0])
    near = change[far.norm(dim=1) < 8].mean()
    assert near > 3 * change[far.norm(dim=1) > 30].mean()


def test_its_macs_are_those_of_each_layer(graph) -> None:
    backbone = 9 * 16 * 32**2 + 2 * 9 * 16**2 * 32**2 + 9 * 16 * 32 * 16**2 + 3 * 9 * 32**2 * 16**2 + 16 * 32 * 16**2
    backbone += 9 * 32 * 64 * 8**2 + 3 * 9 * 64**2 * 8**2 + 32 * 64 * 8**2
    pyramid = 32 * 32 * 16**2 + 64 * 32 * 8**2 + 9 * 32**2 * (16**2 + 8**2 + 4**2)
    head = (4 * 9 * 32**2 + 9 * 32 * ANCHORS * (10 + 4)) * (16**2 + 8**2 + 4**2)
    assert cutback.measure.macs(graph.model, torch.zeros(1, 1, 64, 64)) == backbone + pyramid + head


def test_every_anchor_starts_as_background() -> None:
    torch.manual_seed(1)
    logits, _ = build("retinanet")(torch.randn(2, 1, 64, 64))
    assert 0.003 < float(logits.detach().sigmoid().mean()) < 0.03


def test_levels_share_units_and_the_head_is_one(graph) -> None:
    groups = {group.name: group for group in graph.groups}
    assert set(groups["pyramid.lateral.1"].layers) == {"pyramid.lateral.0", "pyramid.lateral.1"}
    smooth = next(group for group in graph.groups if "pyramid.smooth.0" in group.layers)
    assert set(smooth.layers) == {"pyramid.smooth.0", "pyramid.smooth.1", "pyramid.coarser"}
    reading = {slot.state for slot in smooth.slices if slot.role == "column"}
    assert reading == {"pyramid.coarser.weight", "classify.layers.0.weight", "locate.layers.0.weight"}
    assert {"classify.layers.0", "classify.layers.1", "locate.layers.0", "locate.layers.1"} <= set(groups)
    assert {layer.layer for layer in graph.kept} == {"classify.predict", "locate.predict"}


def test_backbone_pyramid_and_head_are_cut_together(graph) -> None:
    plan = cutback.plan(graph, budget="channels=50%")
    small = cutback.apply(graph, plan)
    assert {small.stem[0].out_channels, small.pyramid.coarser.out_channels, small.locate.predict.in_channels} == {8, 16}
    logits, deltas = small(torch.randn(3, 1, 64, 64))
    assert logits.shape[:2] == deltas.shape[:2] == (3, len(anchors(64, 64)))


def test_what_is_found_is_decoded_best_first() -> None:
    boxes = anchors(64, 64)
    logits, deltas = torch.full((1, len(boxes), 3), -9.0), torch.zeros(1, len(boxes), 4)
    logits[0, 100, 2], logits[0, 700, 0], logits[0, 101, 2] = 2.0, 3.0, 1.0
    ((found, scores, classes),) = detections(logits, deltas, boxes, overlap=0.3)
    assert classes.tolist() == [0, 2]  # the third overlaps the second of its class
    assert torch.allclose(found, boxes[[700, 100]], atol=1e-5)
    assert scores.tolist() == pytest.approx(torch.tensor([3.0, 2.0]).sigmoid().tolist())
    nothing = detections(torch.full((1, len(boxes), 3), -9.0), deltas, boxes)[0]
    assert [len(part) for part in nothing] == [0, 0, 0]
