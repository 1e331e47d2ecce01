"""The relaxation by itself: its gradient, and the subsets it selects, against brute force."""

import itertools
import math

import pytest
import torch

from cutback.methods.subarchitecture import Relaxation

COUNT = 1000


def relaxation(theta, **settings):
    return Relaxation(theta, **{"cold": 0.05, "warm": 1.0, "rate": 0.1, "momentum": 0.9, **settings})


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_its_gradient_is_that_of_the_cold_mask_times_the_ratio_of_the_two_slopes():
    cold, warm, theta = 0.3, 1.0, drawn(COUNT, seed=0)
    target, matrix = drawn(COUNT, seed=1), drawn(COUNT, COUNT, seed=2) / COUNT**0.5

    def loss(mask):
        return (torch.sin(matrix @ mask) - target).square().sum() + mask.pow(3).sum()

    leaf = theta.clone().requires_grad_()
    (automatic,) = torch.autograd.grad(loss(1 / (1 + torch.exp(-leaf / cold))), leaf)
    mask = (1 / (1 + torch.exp(-theta / cold))).requires_grad_()
    (by_mask,) = torch.autograd.grad(loss(mask), mask)
    found = relaxation(theta, cold=cold, warm=warm).direction(by_mask)

    def slope(x, t):
        return torch.exp(-x / t) / (t * (1 + torch.exp(-x / t)) ** 2)

    ratio = slope(theta, warm) / slope(theta, cold)
    assert torch.allclose(found, ratio * automatic, rtol=1e-12, atol=0)
    assert float(ratio.min()) >= cold / warm
    assert float(found @ automatic) > 0


def test_a_step_is_one_of_gradient_descent_with_momentum_within_bounds():
    found = relaxation(torch.tensor([0.1, -0.2, 3.99], dtype=torch.float64), cold=0.5, warm=1.0, rate=0.5, momentum=0.8)
    theta, velocity = [0.1, -0.2, 3.99], [0.0, 0.0, 0.0]
    for gradient in ([1.0, 2.0, -90.0], [-1.0, 0.5, 40.0], [0.0, 0.0, 0.0]):
        found.step(torch.tensor(gradient, dtype=torch.float64))
        for unit, slope in enumerate(gradient):
            warm = 1 / (1 + math.exp(-theta[unit]))
            velocity[unit] = 0.8 * velocity[unit] + slope * warm * (1 - warm)
            theta[unit] = min(4.0, max(-4.0, theta[unit] - 0.5 * velocity[unit]))
        assert found.theta.tolist() == pytest.approx(theta, rel=1e-12)
    assert found.mask.tolist() == pytest.approx([1 / (1 + math.exp(-x / 0.5)) for x in theta])
    assert found.kept.tolist() == [x > 0 for x in theta]


def test_of_separate_units_those_stay_that_are_worth_their_price():
    generator = torch.Generator().manual_seed(0)
    worth, price = torch.rand(200, generator=generator), 0.5 + torch.rand(200, generator=generator)
    found = relaxation(torch.zeros(200))
    for _ in range(2000):
        found.step(0.5 * price - worth)
    assert torch.equal(found.kept, worth > 0.5 * price)


def regressions(seeds):
    """Return what the best of all masks loses, and the losses of all masks, for regressions with a hidden support."""
    masks = torch.tensor(list(itertools.product((0.0, 1.0), repeat=10)), dtype=torch.float64)
    columns, answers = [], []
    for seed in range(seeds):
        rows, weights = drawn(40, 10, seed=seed), drawn(10, seed=100 + seed)
        rows[:, 1] = 0.8 * rows[:, 0] + 0.6 * rows[:, 1]
        support = (drawn(10, seed=200 + seed) > 0).double()
        columns.append(rows * weights)
        answers.append(rows @ (support * weights) + 0.3 * drawn(40, seed=300 + seed))
    return torch.stack(columns), torch.stack(answers), masks


def test_hidden_supports_are_found_nearly_as_often_as_by_brute_force():
    seeds, price = 20, 0.05
    columns, answers, masks = regressions(seeds)
    found = relaxation(torch.zeros(seeds * 10, dtype=torch.float64))
    for _ in range(2000):
        mask = found.mask.view(seeds, 10)
        residual = torch.einsum("srn,sn->sr", columns, mask) - answers
        gradient = 2 * torch.einsum("srn,sr->sn", columns, residual) / 40 + price
        found.step(gradient.flatten())
    losses = (torch.einsum("srn,mn->smr", columns, masks) - answers[:, None]).square().mean(2) + price * masks.sum(1)
    kept = found.kept.view(seeds, 10)
    powers = 2 ** torch.arange(9, -1, -1)
    numbers = (kept * powers).sum(1)
    own = losses[torch.arange(seeds), numbers]
    flips = torch.stack([losses[torch.arange(seeds), numbers ^ int(power)] for power in powers], 1)
    assert int((own <= losses.min(1).values + 1e-12).sum()) >= 16
    assert int((own <= flips.min(1).values + 1e-12).sum()) >= 18


def test_its_state_is_a_copy():
    first, second = relaxation(torch.zeros(3)), relaxation(torch.zeros(3))
    first.step(torch.tensor([1.0, -1.0, 0.5]))
    state = first.state_dict()
    second.load_state_dict(state)
    first.step(torch.ones(3))
    second.step(torch.ones(3))
    assert torch.equal(first.theta, second.theta)
    assert not torch.equal(state["theta"], first.theta)
