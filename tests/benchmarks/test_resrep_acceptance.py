"""The small-scale experiment of ResRep in a short form, with the bounds of the whole, and the page's verdicts."""

import pytest

from benchmarks.gratings import gratings
from benchmarks.resrep_acceptance import CONTROLS, PICTURES, accuracy, checks_of, page, pruned, smallest, trained

SHORT = {"strength": 1e-2, "interval": 4, "before_masks": 20}
STEPS = 450


@pytest.fixture(scope="module")
def learnt():
    data = gratings(PICTURES, seed=0)
    return trained(0, data, 200), data


def test_reset_rows_fall_to_nothing_the_others_learn_and_folding_costs_nothing(learnt) -> None:
    model, data = learnt
    test = gratings(1000, seed=1)
    outcome = pruned(model, 0, data, test, STEPS, **SHORT)
    base = accuracy(model, test)
    assert base > 0.8
    missed = [text for met, text in checks_of(outcome, test, base) if not met]
    assert not missed


def test_without_resetting_no_row_falls_to_nothing(learnt) -> None:
    model, data = learnt
    with pytest.warns(UserWarning, match="resets at most 0 rows"):
        norm = smallest(model, 0, data, 150, **{**SHORT, "before_masks": 200})
    assert norm > 1e-3


@pytest.mark.parametrize("wrong", [None, *CONTROLS])
def test_the_page_says_which_bounds_are_met(wrong) -> None:
    controls = {how: bound * (0.5 if how == wrong else 2.0) for how, (_, bound) in CONTROLS.items()}
    text, met = page([(0, [(True, "so it is")])], controls, [("gratings", 0, 0.96, 0.95, 0.54, (4, 10, 8))])
    assert met == (wrong is None)
    assert text.count("MISSED") == (wrong is not None)
    text, met = page([(0, [(False, "so it is not")])], controls, [])
    assert not met
    assert "MISSED: so it is not" in text
