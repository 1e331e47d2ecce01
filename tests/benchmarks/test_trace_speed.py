"""The speed comparison's own parts."""

import pytest

from benchmarks.trace_speed import allowed, growth_plot, in_its_own_process, ours, ours_beside, page, peak_of_trace
from tests.helpers import chain, image

STAGES = {"capture": 0.1, "labels": 0.05, "plan": 0.03, "cut": 0.02, "ours": 0.2}


def test_every_stage_is_timed_and_the_model_is_cut() -> None:
    model = chain()
    before = sum(parameter.numel() for parameter in model.parameters())
    assert list(ours(model, image())) == ["capture", "labels", "plan", "cut"]
    assert sum(parameter.numel() for parameter in model.parameters()) < before
    assert set(ours_beside(chain(), image())) == {"second capture", "proof"}


@pytest.mark.parametrize(
    ("theirs", "last", "peak", "met"),
    [(0.5, 12.0, 20, True), (0.3, 12.0, 20, False), (0.5, 15.0, 20, False), (0.5, 12.0, 31, False)],
)
def test_the_page_says_which_bounds_are_met(theirs, last, peak, met, monkeypatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1")
    row = {**STAGES, "theirs": theirs, "left by us": 0.3, "left by them": 0.3, "peak": peak, "allowed": 30}
    text, found = page({"Net": row}, {20: 0.2, 110: 1.1, 1202: last}, repeats=3)
    assert found is met
    assert ("MISSED" in text) is not met
    assert f"| {0.2 / theirs:.2f} |" in text


def test_a_trace_holds_less_than_the_model_and_its_activations() -> None:
    assert 0 < in_its_own_process(peak_of_trace, "mobilenet_v3_large") < allowed("mobilenet_v3_large")


def test_the_plot_shows_every_depth() -> None:
    plot = growth_plot({20: 0.2, 110: 1.0, 1202: 12.0})
    assert plot.startswith("<svg")
    assert plot.count("<circle") == 3
