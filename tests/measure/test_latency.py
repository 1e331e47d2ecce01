"""Latency: the interval, the taking of turns, and everything put back as found."""

import math
import time

import pytest
import torch
from torch import Tensor, nn

from cutback.errors import UserMistake
from cutback.measure.latency import _rank_below, compare_latency


class Sleeper(nn.Module):
    """Takes a known time and writes down who was called, with what, and how."""

    def __init__(self, name: str, seconds: float, calls: list[tuple]) -> None:
        super().__init__()
        self.name, self.seconds, self.calls = name, seconds, calls
        self.inner = nn.Dropout()

    def forward(self, images: Tensor, scale: Tensor | None = None) -> Tensor:
        time.sleep(self.seconds)
        self.calls.append((self.name, scale is not None, self.training or self.inner.training, torch.is_grad_enabled()))
        return images


def test_models_take_turns_in_eval_mode_and_the_interval_holds_the_median() -> None:
    calls: list[tuple] = []
    models = {name: Sleeper(name, seconds, calls) for name, seconds in (("slow", 0.004), ("fast", 0.001))}
    models["slow"].inner.eval()
    threads = torch.get_num_threads()
    latency = compare_latency(models, torch.zeros(1), repeats=20, warmup=2, threads=1)
    assert list(latency) == ["slow", "fast"]
    for measured, least in zip(latency.values(), (4, 1), strict=True):
        assert least <= measured.low_ms <= measured.median_ms <= measured.high_ms
        assert (measured.repeats, measured.threads) == (20, 1)
    assert latency["fast"].median_ms < latency["slow"].median_ms
    assert latency["slow"].of_first == 1
    assert 0 < latency["fast"].of_first < 1
    rounds = [tuple(call[0] for call in calls[at : at + 2]) for at in range(0, len(calls), 2)]
    assert len(rounds) == 22
    assert set(rounds) == {("slow", "fast"), ("fast", "slow")}
    assert not any(training or grad for _, _, training, grad in calls)
    assert torch.get_num_threads() == threads
    assert models["slow"].training
    assert not models["slow"].inner.training
    assert models["fast"].inner.training


@pytest.mark.parametrize(
    "inputs", [(torch.zeros(1), torch.ones(1)), {"images": torch.zeros(1), "scale": torch.ones(1)}]
)
def test_inputs_may_be_positional_or_keyword(inputs: object) -> None:
    calls: list[tuple] = []
    compare_latency({"a": Sleeper("a", 0, calls)}, inputs, repeats=6, warmup=0)
    assert all(scaled for _, scaled, _, _ in calls)


def test_everything_is_restored_after_an_error() -> None:
    model, threads = nn.Sequential(nn.Linear(3, 3)), torch.get_num_threads()
    with pytest.raises(RuntimeError):
        compare_latency({"a": model}, torch.zeros(1, 4), threads=1)
    assert model.training
    assert model[0].training
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("options", [{"repeats": 5}, {"threads": 0}])
def test_senseless_settings_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UserMistake, match="at least"):
        compare_latency({}, torch.zeros(1), **options)


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (10, 2), (20, 6), (30, 10), (100, 40)])
def test_the_interval_is_the_tightest_that_covers_95_percent(count: int, rank: int) -> None:
    def coverage(r: int) -> float:
        return 1 - 2 * sum(math.comb(count, k) for k in range(r)) / 2**count

    assert _rank_below(count) == rank
    assert coverage(rank) >= 0.95 > coverage(rank + 1)
