"""Test support: hypothesis profile, one thread a process, and torchvision beside a CPU build of torch."""

import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "cutback", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("cutback")


def pytest_configure(config) -> None:
    """Let torchvision's models import where its compiled operators do not load."""
    torch.set_num_threads(1)
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
