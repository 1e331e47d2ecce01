"""The schedule: one pass and several, masks before the cut, new weights, resuming at any step, records."""

import copy
import json
import re
from importlib import resources

import pytest
import torch

import cutback
from cutback.errors import ArchitectureMismatch
from cutback.methods import describe, make_method
from cutback.methods.slimming import Slimming
from cutback.models import build
from cutback.planning.assemble import plan_for
from tests.helpers import chain, image, plain
from tests.methods.slimming.networks import batch_norms, run, spread, traced


def trainer(model, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Slimming(traced(model), optimizers=optimizer, **{"budget": "channels=50%", **settings}), optimizer


def test_the_cut_comes_after_the_given_steps_and_ends_it() -> None:
    model = spread(chain())
    method, optimizer = trainer(model, steps=3)
    assert run(method, model, optimizer, 5) == [False, False, True, False, False]
    assert method.finished
    assert model[0].out_channels + model[3].out_channels == 10
    assert not method.penalty().any()


def test_after_the_cut_the_penalty_is_off() -> None:
    model = spread(chain())
    method, optimizer = trainer(model, steps=1, sparsity=1.0)
    run(method, model, optimizer, 1)
    model.zero_grad()
    with method:
        model(image()).sum().backward()
        before = model[1].weight.grad.clone()
        method.before_step()
    assert torch.equal(model[1].weight.grad, before)


def test_masks_hold_through_momentum_and_decay_and_the_cut_then_changes_nothing() -> None:
    model = spread(chain())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    method = Slimming(traced(model), steps=2, masked_steps=3, budget="channels=50%", optimizers=optimizer)
    with method:
        for step in range(5):
            optimizer.zero_grad()
            model(image(step)).square().mean().backward()
            method.before_step()
            masked = {name: m.weight == 0 for name, m in batch_norms(model).items()}
            if step > 1:
                assert sum(int(mask.sum()) for mask in masked.values()) == 10
                for name, mask in masked.items():
                    module = model.get_submodule(name)
                    assert not module.bias[mask].any()
                    assert not module.weight.grad[mask].any()
                    assert not module.bias.grad[mask].any()
                    assert module.weight.grad[~mask].all()
            optimizer.step()
            if step == 4:
                with torch.no_grad():
                    silent = copy.deepcopy(model).eval()
                    for name, mask in masked.items():
                        silent.get_submodule(name).weight[mask] = 0
                        silent.get_submodule(name).bias[mask] = 0
            assert method.after_step() == (step == 4)
    assert torch.allclose(model.eval()(image(9)), silent(image(9)), atol=1e-6)


def test_several_passes_cut_what_the_last_one_left_and_compose() -> None:
    model = spread(chain((16, 16)))
    method, optimizer = trainer(model, steps=2, passes=3, tune_steps=1, max_removed=0.5)
    dense = copy.deepcopy(model)
    assert run(method, model, optimizer, 9) == [False, True, False, False, True, False, False, True, False]
    assert method.finished
    assert model[0].out_channels + model[3].out_channels == 4
    plan = method.plan()
    assert plan.costs["params"].before == sum(p.numel() for p in dense.parameters())
    assert plan.costs["params"].after == sum(p.numel() for p in model.parameters())
    assert all(len(group.kept) >= 2 for group in plan.groups), "at most half of a layer a pass"


@pytest.mark.parametrize("restart", [True, False])
def test_a_further_pass_begins_with_new_weights_or_goes_on(restart) -> None:
    model = spread(chain((16, 16)))
    method, optimizer = trainer(model, steps=1, passes=2, restart=restart, initial_scale=0.5)
    optimizer.param_groups[0]["lr"] = 1e-6
    first = model[3].weight.detach().clone()
    with method:
        assert all(bool((norm.weight == 0.5).all()) for norm in batch_norms(model).values())
        model(image()).square().mean().backward()
        optimizer.step()
        with torch.no_grad():
            model[1].weight.add_(torch.linspace(0, 1, 16))
        method.after_step()
    kept = method.plan().slices["3.weight"]
    carried = first[list(kept[0].indices)][:, list(kept[1].indices)] if 0 in kept else first[:, list(kept[1].indices)]
    assert torch.allclose(model[3].weight, carried, atol=1e-3) != restart
    assert bool((model[1].weight == 0.5).all()) == restart
    assert (not optimizer.state) == restart


def test_new_weights_depend_on_the_seed_alone() -> None:
    found = []
    for seed, drawn in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(drawn)
        model = spread(chain((16, 16)))
        method, _ = trainer(model, steps=1, passes=2, restart=True, seed=seed)
        before = torch.get_rng_state()
        with method:
            method.after_step()
        assert torch.equal(torch.get_rng_state(), before)
        found.append(model[3].weight.detach().clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("stop", range(1, 8))
def test_a_run_that_is_resumed_at_any_step_ends_with_the_same_bytes(stop) -> None:
    settings = {"steps": 2, "masked_steps": 1, "tune_steps": 1, "passes": 2, "sparsity": 0.01, "schedule": "rising"}

    def go(model, method, optimizer, steps):
        with method:
            for step in steps:
                optimizer.zero_grad()
                model(image(step)).square().mean().backward()
                method.before_step()
                optimizer.step()
                method.after_step()

    whole = spread(chain((16, 16)))
    method, optimizer = trainer(whole, **settings)
    go(whole, method, optimizer, range(8))

    model = spread(chain((16, 16)))
    method, optimizer = trainer(model, **settings)
    go(model, method, optimizer, range(stop))
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict(), json.loads(json.dumps(method.state_dict()))))

    model = chain((16, 16), seed=3)
    plan = method.plan()
    if plan is not None:
        cutback.apply_(traced(model), plan, prove=False)
    model.load_state_dict(kept[0])
    again, optimizer = trainer(model, **settings)
    again.load_state_dict(kept[2])
    optimizer.load_state_dict(kept[1])
    go(model, again, optimizer, range(stop, 8))
    assert plain(model.state_dict()) == plain(whole.state_dict())
    assert again.finished


def test_a_state_of_another_model_is_refused() -> None:
    model = spread(chain())
    method, optimizer = trainer(model, steps=1)
    run(method, model, optimizer, 1)
    other, _ = trainer(spread(chain()), steps=1)
    with pytest.raises(ArchitectureMismatch):
        other.load_state_dict(method.state_dict())


def test_records_tell_how_the_scales_are_distributed() -> None:
    model = spread(chain())
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, -0.005, 0.004, 0.5, 1, 1, -2, 1]))
        model[4].weight.fill_(1.0)
    method, _ = trainer(model, steps=2)
    found = json.loads(json.dumps(method.records()))
    assert found["near_zero"] == pytest.approx(3 / 20)
    assert sum(found["scales"]["counts"]) == 20
    assert found["scales"]["counts"][0] == 3
    assert found["scales"]["edges"][-1] == 2.0
    assert len(found["scales"]["edges"]) == len(found["scales"]["counts"]) + 1


def test_it_is_made_from_its_name_with_settings_as_text() -> None:
    model = spread(chain())
    settings = {"steps": "7", "sparsity": "1e-3", "max-removed": "0.5", "absorb": "yes", "smooth": "none"}
    method = make_method("slimming", traced(model), settings=settings, given={"budget": "channels=60%"})
    assert isinstance(method, Slimming)
    assert (method.phases.sparse, method.sparsity, method.absorb, method.smooth) == (7, 1e-3, True, None)
    assert describe("slimming").about.year == 2017


WIDTHS = (22, 62, 83, 119, 193, 168, 85, 40, *(32,) * 7, 38)
"""The network before the fifth pass of the paper's table on VGG-19 for CIFAR-10."""


def test_the_paper_s_multi_pass_widths_cost_what_its_table_says() -> None:
    graph = cutback.trace(build("vgg19"), torch.randn(1, 3, 32, 32))
    assert sum(group.units for group in graph.groups) == 5504
    assert len(graph.groups) == len(WIDTHS) == 16
    units = {group.name: range(width) for group, width in zip(graph.groups, WIDTHS, strict=True)}
    costs = plan_for(graph, units).costs
    assert sum(WIDTHS) == 1034
    assert round(1 - costs["params"].after / costs["params"].before, 3) == 0.956
    assert round(1 - costs["macs"].after / costs["macs"].before, 3) == 0.772


def test_the_example_of_its_page_runs(capsys) -> None:
    page = resources.files("cutback.methods.slimming").joinpath("README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    found: dict = {"__name__": "page"}
    exec(compile(example, "README.md", "exec"), found)  # noqa: S102
    assert found["method"].finished
    assert "channels: " in capsys.readouterr().out
