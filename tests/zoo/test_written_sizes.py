"""Public architectures whose code holds widths in attributes of its own."""

import pytest
import torch

import cutback

timm = pytest.importorskip("timm")


def test_blur_pooling_follows_by_its_channels_attribute() -> None:
    torch.manual_seed(0)
    model = timm.create_model("tresnet_m", pretrained=False)
    graph = cutback.trace(model, torch.randn(1, 3, 64, 64))
    assert not graph.boundaries
    held = {(followed.path, followed.attribute) for followed in graph.coupling.followed}
    pools = {(path, "channels") for path, module in model.named_modules() if type(module).__name__ == "BlurPool2d"}
    assert held == pools
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan)
    assert plan.costs["params"].after < 0.3 * plan.costs["params"].before
    for path, _ in pools:
        pool = model.get_submodule(path)
        assert pool.channels == len(pool.filt)
    model.eval()(torch.randn(1, 3, 64, 64))
