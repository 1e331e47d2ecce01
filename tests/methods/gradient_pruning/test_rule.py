"""The stochastic rule: what comes out, how many zeros, and that nothing is lost on average."""

import math
import random

import pytest
import torch

from cutback.methods.gradient_pruning.rule import calibrated, deviations, normal_zeros, pruned, spread


def normal(count: int, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))


def below(k: float) -> float:
    """The share of a normal distribution within k standard deviations."""
    return math.erf(k / math.sqrt(2))


def integrated_zeros(k: float, steps: int = 20_000) -> float:
    """The mean of 1 - |x| / k over a normal distribution where that is positive, by the midpoint rule."""
    width = k / steps
    centres = ((number + 0.5) * width for number in range(steps))
    return sum(2 * (1 - x / k) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi) * width for x in centres)


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_constants_are_those_of_the_normal_distribution(rate):
    k = deviations(rate)
    assert below(k) == pytest.approx(rate, abs=1e-12)
    assert normal_zeros(rate) == pytest.approx(integrated_zeros(k), abs=1e-8)


@pytest.mark.parametrize(("rate", "k", "zeros"), [(0.7, 1.0364, 0.3801), (0.9, 1.6449, 0.5403), (0.99, 2.5758, 0.6915)])
def test_the_constants_are_the_published_table(rate, k, zeros):
    assert deviations(rate) == pytest.approx(k, abs=5e-5)
    assert normal_zeros(rate) == pytest.approx(zeros, abs=5e-5)


@pytest.mark.parametrize("rate", [0.7, 0.9, 0.99])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_normal_gradients_lie_below_and_become_zero_as_often_as_said(scale, rate):
    gradient = normal(1_000_000, scale)
    threshold = deviations(rate) * spread(gradient, "mean-absolute")
    found = pruned(gradient, threshold, torch.rand(len(gradient), generator=torch.Generator().manual_seed(1)))
    assert abs(float((gradient.abs() < threshold).float().mean()) - rate) <= 0.005
    assert abs(float((found == 0).float().mean()) - normal_zeros(rate)) <= 0.005


def test_each_entry_is_what_the_rule_says():
    drawn = random.Random(0)
    entries = [0.0, -0.0, 1.0, -1.0, *(drawn.gauss(0, 1) for _ in range(500))]
    draws, threshold = [drawn.random() for _ in entries], 1.0
    expected = []
    for entry, u in zip(entries, draws, strict=True):
        if abs(entry) >= threshold:
            expected.append(entry)
        elif abs(entry) > u * threshold:
            expected.append(math.copysign(threshold, entry))
        else:
            expected.append(0.0)
    found = pruned(
        torch.tensor(entries, dtype=torch.float64),
        torch.tensor(threshold, dtype=torch.float64),
        torch.tensor(draws, dtype=torch.float64),
    )
    assert found.tolist() == expected
    assert 100 < expected.count(0.0) < 400


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_in_any_type_an_entry_is_kept_or_zero_or_at_the_threshold_with_its_sign(kind):
    gradient = normal(5000).to(kind)
    threshold = torch.tensor(1.2345678)
    found = pruned(gradient, threshold, torch.rand(5000, generator=torch.Generator().manual_seed(1)))
    limit = threshold.to(kind)
    large = gradient.abs() >= limit
    assert found.dtype == kind
    assert torch.equal(found[large], gradient[large])
    rest, was = found[~large], gradient[~large]
    assert ((rest == 0) | (rest == limit.copysign(was))).all()


def scores(gradient, threshold, rule, draws=4000):
    """By how many standard errors the mean over draws misses each entry below the threshold."""
    generator, total = torch.Generator().manual_seed(5), torch.zeros(len(gradient), dtype=torch.float64)
    for _ in range(draws // 100):
        drawn = torch.rand(100, len(gradient), generator=generator)
        total += rule(gradient.expand(100, -1), threshold, drawn).double().sum(0)
    small = (gradient.abs() < threshold) & (gradient != 0)
    sizes = gradient.abs().double()
    error = (sizes * (threshold - sizes) / draws).sqrt()
    return ((total / draws - gradient) / error)[small]


def test_the_mean_of_each_entry_is_the_entry():
    gradient = normal(4096)
    threshold = deviations(0.9) * spread(gradient, "mean-absolute")
    found = scores(gradient, threshold, pruned)
    assert 0.93 <= float(found.square().mean()) <= 1.07
    assert abs(float(found.mean())) < 0.06
    assert float(found.abs().max()) < 5.5

    def cut(gradient, threshold, draws):
        return torch.where(gradient.abs() < threshold, 0, gradient)

    assert float(scores(gradient, threshold, cut).square().mean()) > 1e3, "cutting would be found"


def test_infinite_and_undefined_entries_stay_for_a_scaler_to_see():
    gradient = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.1])
    found = pruned(gradient, torch.tensor(1.0), torch.zeros(4))
    assert found[:2].tolist() == [float("inf"), float("-inf")]
    assert found[2].isnan()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channel", [None, 1])
@pytest.mark.parametrize("estimate", ["mean-absolute", "standard-deviation"])
def test_the_spread_is_that_of_the_entries_that_are_not_zero(estimate, channel, kind):
    gradient = normal(4 * 3 * 5 * 5).view(4, 3, 5, 5) * torch.tensor([1.0, 50.0, 0.0]).view(1, 3, 1, 1)
    gradient = (gradient * (normal(300, seed=2).view(4, 3, 5, 5) > 0)).to(kind)
    found = spread(gradient, estimate, channel)
    parts = [gradient[:, c] for c in range(3)] if channel else [gradient]
    for part, value in zip(parts, found.flatten().tolist(), strict=True):
        entries = [float(entry) for entry in part.flatten() if entry != 0]
        if not entries:
            assert value == 0
        elif estimate == "mean-absolute":
            expected = math.sqrt(math.pi / 2) * sum(map(abs, entries)) / len(entries)
            assert value == pytest.approx(expected, rel=1e-4)
        else:
            mean = sum(entries) / len(entries)
            expected = math.sqrt(sum((entry - mean) ** 2 for entry in entries) / len(entries))
            assert value == pytest.approx(expected, rel=1e-4)
    assert found.dim() == (4 if channel else 0)


LAWS = {
    "normal": lambda x: x,
    "laplace": lambda x: torch.sign(x) * -torch.log1p(-torch.erf(x.abs() / math.sqrt(2))),
    "lognormal": lambda x: torch.exp(2 * x) * torch.sign(normal(len(x), seed=9)),
    "student": lambda x: x / ((normal(len(x), seed=7) ** 2 + normal(len(x), seed=8) ** 2) / 2).sqrt(),
}


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize("law", LAWS)
def test_a_calibrated_threshold_gives_the_zeros_asked_for_whatever_the_law(law, share):
    gradient = LAWS[law](normal(200_000))
    threshold = calibrated(gradient, share, torch.Generator().manual_seed(3))
    found = pruned(gradient, threshold, torch.rand(len(gradient), generator=torch.Generator().manual_seed(4)))
    assert abs(float((found == 0).float().mean()) - share) <= 0.02


def test_a_calibrated_threshold_solves_its_equation_and_leaves_zeros_out():
    gradient = torch.tensor([0.0, 1.0, -2.0, 0.0, 5.0])
    threshold = float(calibrated(gradient, 0.6, torch.Generator()))
    assert sum(max(0, 1 - size / threshold) for size in (1, 2, 5)) / 3 == pytest.approx(0.6, abs=1e-9)
    assert float(calibrated(torch.zeros(4), 0.6, torch.Generator())) == 0
