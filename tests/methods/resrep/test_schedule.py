"""When rows are reset, when the model is converted, what a log is told, and going on after a stop."""

import copy
import re
from importlib import resources

import numpy as np
import pytest
import torch

from cutback.errors import ArchitectureMismatch
from cutback.measure import macs
from tests.helpers import chain, image, plain
from tests.methods.resrep.networks import Basic, made, method_of, step


def reset(method):
    return sum(int((~own).sum()) for own in method._insertion.live)


def test_masks_begin_after_the_steps_before_them_and_are_renewed_at_intervals():
    with method_of(made(Basic).train(), steps=40, budget="macs=70%", before_masks=4, interval=3, added=2) as method:
        counts = []
        for number in range(13):
            step(method, number)
            counts.append(reset(method))
    assert counts == [0, 0, 0, 0, 0, 2, 2, 2, 4, 4, 4, 6, 6]


def test_the_default_is_a_36th_of_the_steps():
    assert method_of(made(Basic), steps=180, before_masks=None).before_masks == 5


def test_rows_fall_to_nothing_and_the_budget_is_met_by_what_is_gone():
    settings = {"strength": 0.2, "momentum": 0.9, "budget": "macs=75%", "interval": 2, "added": 2, "threshold": 1e-3}
    model, steps = made(Basic).train(), 100
    dense = macs(model, image()[:1])
    method = method_of(model, steps=steps, **settings)
    with method:
        for number in range(steps):
            method.optimizers[0].param_groups[0]["lr"] = 0.04 * (1 + np.cos(np.pi * number / steps))
            if number == steps - 1:
                live = method._insertion.live
                norms = method._insertion.norms
                expected = {t.name: int(own.sum()) for t, own in zip(method._insertion.targets, live, strict=True)}
                records = method.records()
            assert step(method, number % 4) == (number == steps - 1)
    assert max(own[~lives].max(initial=0) for own, lives in zip(norms, live, strict=True)) < 1e-3
    assert min(own[lives].min() for own, lives in zip(norms, live, strict=True)) > 1e-3
    assert method.finished
    assert {group.name: len(group.kept) for group in method.plan().groups if group.name in expected} == expected
    assert not method.plan().notes
    after = macs(model, image()[:1])
    assert after == method.plan().costs["macs"].after == records["macs"] <= 0.75 * dense
    assert records["macs by norms from 0.001"] == after
    assert {name: records[f"width of {name}"] for name in expected} == expected
    assert method.records()["change"] < 1e-3


def test_rows_that_have_not_fallen_go_for_the_budget_with_a_warning():
    model = made(Basic).train()
    dense = macs(model, image()[:1])
    with method_of(model, steps=3, strength=1e-4) as method:
        step(method)
        step(method)
        with pytest.warns(UserWarning, match="had not fallen below 1e-05"):
            step(method)
    assert macs(model, image()[:1]) <= 0.6 * dense
    assert "had not fallen" in method.plan().notes[0]


def test_the_largest_rows_stay_although_all_have_fallen():
    model = made(Basic).train()
    with method_of(model, rate=0.0, steps=2, min_channels=2) as method:
        with torch.no_grad():
            for compactor in method._insertion.compactors:
                compactor.weight.mul_(torch.arange(len(compactor.weight))[:, None] * 1e-8)
        step(method)
        step(method)
    kept = {group.name: group.kept for group in method.plan().groups}
    assert kept["first1.0"] == (8, 9)
    assert kept["second1.0"] == (7, 8)


def test_a_run_goes_on_from_any_step_at_the_rate_of_that_step():
    def run(start=0, states=None):
        """Train from a step on; return the weights at the end, and all states on the way."""
        model, found = made(Basic).train(), []
        method = method_of(model, steps=8, strength=3.0, threshold=0.5, before_masks=2, added=2, coupled=True)
        (optimizer,) = method.optimizers
        if states is not None:
            model.load_state_dict(states[start][0])
            method.load_state_dict(states[start][1])
        with method:
            if states is not None:
                optimizer.load_state_dict(states[start][2])  # which then has other groups than before
                assert plain(method.state_dict()) == plain(states[start][1])
            for number in range(start, 8):
                found.append(copy.deepcopy((model.state_dict(), method.state_dict(), optimizer.state_dict())))
                optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)
                step(method, number)
        assert method.finished
        return plain(dict(model.state_dict())), found

    whole, states = run()
    for number in (1, 4, 7):
        assert run(number, states)[0] == whole


def test_a_method_that_was_left_early_is_entered_again():
    found = []
    for leaves in (False, True):
        model = made(Basic).train()
        method = method_of(model, steps=6, strength=3.0, threshold=0.5, added=8)
        for part in (range(3), range(3, 6)) if leaves else (range(6),):
            with method:
                for number in part:
                    step(method, number)
        found.append(plain(dict(model.state_dict())))
    assert found[0] == found[1]


def test_a_state_of_other_groups_is_refused():
    with method_of(made(Basic)) as method:
        state = method.state_dict()
    other = method_of(chain())
    other.load_state_dict(state)
    with pytest.raises(ArchitectureMismatch, match="other groups"), other:
        pass
    ignoring = method_of(made(Basic), ignore="first1*", budget="macs=90%")
    ignoring.load_state_dict(state)
    with pytest.raises(ArchitectureMismatch, match="other groups"), ignoring:
        pass


def test_the_readme_runs():
    page = resources.files("cutback.methods.resrep").joinpath("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    found = {"__name__": "readme"}
    exec(compile(example, "README.md", "exec"), found)  # noqa: S102
    assert found["method"].finished
