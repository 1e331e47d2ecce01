"""Dense detectors are followed from end to end and cut with proof: backbone, neck and head together."""

import pytest
import torch

import cutback
from cutback.methods.group_fisher.units import with_whole_groups
from tests.zoo.detectors import Yolo, torchvision_fcos, torchvision_retinanet

DETECTORS = {"retinanet": torchvision_retinanet, "fcos": torchvision_fcos, "yolo": Yolo}


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def traced(request):
    torch.manual_seed(0)
    return request.param, cutback.trace(DETECTORS[request.param](), torch.randn(1, 3, 64, 64))


def test_only_what_predicts_stays_whole(traced) -> None:
    name, graph = traced
    predicting = {
        "retinanet": {"head.classification_head.cls_logits", "head.regression_head.bbox_reg"},
        "fcos": {f"head.{part}" for part in ("classification_head.cls_logits", "regression_head.bbox_reg")}
        | {"head.regression_head.bbox_ctrness"},
        "yolo": {f"detect.cv{branch}.{level}.2" for branch in (2, 3) for level in range(3)},
    }[name]
    assert {layer.layer for layer in graph.kept} == predicting
    assert not graph.unreached
    assert not graph.train_failure


def test_they_are_cut_with_proof(traced) -> None:
    _, graph = traced
    dense = cutback.plan(graph, budget="channels=50%")
    proof = cutback.prove(graph, dense)
    assert proof.error <= 1e-5
    assert proof.modes == ("eval", "train")
    assert dense.costs["params"].after < 0.5 * dense.costs["params"].before


def test_one_unit_stands_for_all_levels_of_a_shared_head(traced) -> None:
    name, graph = traced
    if name == "yolo":
        pytest.skip("each of its levels has a head of its own")
    entry = next(group for group in graph.groups if "backbone.fpn.layer_blocks.0.0" in group.layers)
    assert {f"backbone.fpn.layer_blocks.{level}.0" for level in range(3)} <= set(entry.layers)
    reading = {slot.state.partition(".conv")[0] for slot in entry.slices if slot.role == "column"}
    assert {"head.classification_head", "head.regression_head"} <= reading


def test_group_fisher_finds_nothing_to_trace_again(traced) -> None:
    _, graph = traced
    assert with_whole_groups(graph) is graph
