"""The latency benchmark's own parts."""

import math

import pytest

from benchmarks.latency_budget import Row, gained, page, stairs
from cutback.measure import Latency, LatencySetting
from cutback.measure.latency_table import LatencyTable
from tests.helpers import chain


def latency(taken: float) -> Latency:
    return Latency(taken, taken * 0.99, taken * 1.01, 50, 1, taken / 10.0)


def row(network: str, cut: float, by_macs: float) -> Row:
    return Row(network, "latency=8ms", 8.0, latency(10.0), latency(cut), latency(by_macs), 0.7)


@pytest.mark.parametrize(("cut", "hit"), [(7.7, True), (8.3, True), (7.5, False), (8.5, False)])
def test_a_target_is_hit_within_five_percent(cut: float, hit: bool) -> None:
    assert row("A", cut, 9.0).hit is hit
    assert ("missed" in page([row("A", cut, 9.0)], LatencySetting(threads=1), {"A": 0.5})) is not hit


def test_the_gain_counts_where_the_middle_target_has_it() -> None:
    much, little = row("A", 8.0, 10.0), row("A", 8.0, 8.1)
    assert gained([much, much, little])
    assert not gained([much, little, little])
    assert gained([little, row("B", 8.0, 9.5)])
    text = page([little, row("B", 8.0, 8.1)], LatencySetting(threads=1), {"A": 0.5})
    assert "in neither network" in text
    assert "the first one takes 50% in A" in text
    assert "A: 1 of 1 targets hit" in text
    assert "in neither network" not in page([much], LatencySetting(threads=1), {"A": 0.5})


@pytest.mark.parametrize(
    ("time", "share"), [(lambda width: math.ceil(width / 16), 1.0), (lambda width: 5 + width, 1 / 16)]
)
def test_stairs_are_told_from_a_slope(time, share, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.latency_budget.network", lambda _: chain((64, 96)))
    monkeypatch.setattr("benchmarks.latency_budget.PICTURES", (1, 3, 8, 8))
    monkeypatch.setattr(LatencyTable, "_time", lambda _, call, widths: float(math.prod(map(time, widths or (1,)))))
    assert stairs("ResNet-18", LatencySetting(cache=tmp_path)) == pytest.approx(share)
