"""The small-scale experiment of ResRep on smaller pictures in few steps, and the verdicts of the whole."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.gratings import gratings
from benchmarks.resrep_acceptance import (
    CONTROLS,
    PICTURES,
    TARGET,
    Outcome,
    accuracy,
    checks_of,
    logits,
    page,
    pruned,
    trained,
)

SHORT = {"strength": 0.05, "momentum": 0.95, "interval": 4, "before_masks": 20, "threshold": 5e-3}
"""With less momentum and a stronger penalty rows fall to nothing in fewer steps."""


def test_reset_rows_fall_to_nothing_the_others_learn_and_folding_costs_nothing() -> None:
    data, test = (gratings(count, seed=seed, size=8, noise=1.0) for seed, count in enumerate((PICTURES, 1000)))
    model = trained(0, data, 80)
    outcome, base = pruned(model, 0, data, test, 200, **SHORT), accuracy(model, test)
    assert base > 0.9
    assert outcome.reset < outcome.live / 50
    assert outcome.kept == outcome.widths
    assert TARGET - outcome.row < outcome.share <= TARGET
    after = logits(outcome.model, test)
    assert float((after.argmax(1) == outcome.before.argmax(1)).double().mean()) >= 0.995
    assert accuracy(outcome.model, test) >= base - 0.015


GOOD = Outcome(nn.Identity(), 1e-6, 0.2, (4, 10, 8), (4, 10, 8), 0.549, 0.01, torch.eye(4))


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({}, None),
        ({"reset": 2e-5}, 0),
        ({"live": 5e-3}, 1),
        ({"kept": (4, 10, 7)}, 2),
        ({"share": 0.551}, 3),
        ({"share": 0.53}, 3),
        ({"before": torch.eye(4)[[1, 0, 2, 3]]}, 4),
        ({"before": torch.eye(4) * 1.01}, 5),
    ],
)
def test_each_bound_is_looked_at(wrong, place) -> None:
    checks = checks_of(replace(GOOD, **wrong), (torch.eye(4), torch.arange(4)), 1.0)
    missed = {number for number, (met, _) in enumerate(checks) if not met}
    assert missed == set() if place is None else place in missed
    assert [met for met, _ in checks_of(GOOD, (torch.eye(4), torch.arange(4)), 0.98)].count(False) == 1


@pytest.mark.parametrize("wrong", [None, *CONTROLS])
def test_the_page_says_which_bounds_are_met(wrong) -> None:
    controls = {how: bound * (0.5 if how == wrong else 2.0) for how, (_, bound) in CONTROLS.items()}
    text, met = page([(0, [(True, "so it is")])], controls, [("gratings", 0, 0.96, 0.95, 0.54, (4, 10, 8))])
    assert met == (wrong is None)
    assert text.count("MISSED") == (wrong is not None)
    text, met = page([(0, [(False, "so it is not")])], controls, [])
    assert not met
    assert "MISSED: so it is not" in text
