"""Which rows are reset, against a brute-force walk."""

import numpy as np
import pytest

from cutback.methods.resrep.choosing import live_rows, next_reset

SIZES, EACH = (3, 5, 4), (7, 2, 5)


def cost(widths):
    """A toy table: neighbours multiply."""
    first, second, third = widths
    return EACH[0] * first + EACH[1] * first * second + EACH[2] * second * third


def walked(norms, live, target, least, added):
    """The walk in words, worked off one by one."""
    everything = sorted((norms[n][row], n, row) for n in range(len(norms)) for row in range(len(norms[n])))
    now = [int(own.sum()) for own in live]
    limit = sum(SIZES) - sum(now) + added if cost(now) > target else 10**9
    widths, marked = list(SIZES), []
    for _, number, row in everything:
        if cost(widths) <= target or len(marked) == limit:
            break
        if widths[number] == least:
            continue
        widths[number] -= 1
        marked.append((number, row))
    return marked


def drawn(generator):
    return [generator.random(size) for size in SIZES]


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_it_is_the_walk_over_all_rows_by_norm(share, least):
    target = share * cost(SIZES)
    generator = np.random.default_rng(0)
    for _ in range(40):
        norms, live = drawn(generator), [own < generator.random() for own in drawn(generator)]
        found = next_reset(norms, live, lambda widths: cost(widths) <= target, least=least, added=2)
        assert found == walked(norms, live, target, least, 2)
        assert all(sum(n == number for n, _ in found) <= size - least for number, size in enumerate(SIZES))


def test_at_most_so_many_are_added_until_the_budget_is_met():
    norms, counts = drawn(np.random.default_rng(0)), []
    live = live_rows([], SIZES)
    for _ in range(6):
        rows = next_reset(norms, live, lambda widths: cost(widths) <= 0.3 * cost(SIZES), least=1, added=2)
        counts.append(len(rows))
        live = live_rows(rows, SIZES)
    enough = counts[-1]
    assert counts == [min(2 * (number + 1), enough) for number in range(6)]
    assert 2 < enough < 9


def test_a_row_whose_norm_has_risen_learns_again():
    norms = [np.array([0.1, 0.5, 0.6]), np.array([0.2, 0.7, 0.8, 0.9, 1.0]), np.array([0.3, 0.4, 2.0, 2.1])]

    def chosen(live):
        return next_reset(norms, live, lambda widths: sum(widths) <= 9, least=1, added=4)

    first = chosen(live_rows([], SIZES))
    assert first == [(0, 0), (1, 0), (2, 0)]
    norms[0][0] = 3.0
    assert chosen(live_rows(first, SIZES)) == [(1, 0), (2, 0), (2, 1)]


def test_skipped_rows_are_no_part_of_the_limit():
    norms = [np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.7, 0.8, 0.9, 1.0]), np.array([2.0, 2.0, 2.0, 2.1])]
    found = next_reset(norms, live_rows([], SIZES), lambda widths: sum(widths) <= 5, least=1, added=4)
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]
