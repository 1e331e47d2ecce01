"""The norm over everything that goes with a unit against plain loops."""

import torch
from torch import nn

from tests.helpers import residual
from tests.scores.networks import assert_equal, flattened, numbers, projected, rated


def expected(units, *pieces):
    """Add up, unit by unit, the squares of the pieces that a function names for it."""
    return [sum(number * number for piece in pieces for number in numbers(piece(unit))) for unit in range(units)]


def rows(*tensors):
    return [lambda unit, tensor=tensor: tensor[unit] for tensor in tensors]


def columns(*tensors):
    return [lambda unit, tensor=tensor: tensor[:, unit] for tensor in tensors]


def test_group_norm_equals_its_loop_through_a_shortcut_and_a_depthwise_layer():
    model = residual()
    stem = [model.stem.weight, model.stem_norm.weight, model.stem_norm.bias, model.outer.weight, model.outer.bias]
    stem += [model.depthwise.weight, model.depthwise.bias, model.slope.weight]
    inner = [model.inner.weight, model.inner.bias, model.inner_norm.weight, model.inner_norm.bias]
    assert_equal(
        rated(model, "group-norm"),
        {
            "stem": expected(8, *rows(*stem), *columns(model.inner.weight, model.head.weight)),
            "inner": expected(10, *rows(*inner), *columns(model.outer.weight)),
        },
    )


def test_group_norm_of_a_layer_that_reads_its_own_stream_counts_rows_and_columns():
    model = projected()
    stream = [model.outer.weight, model.projection.weight, model.second.weight]
    for norm in (model.outer_norm, model.projection_norm, model.second_norm):
        stream += [norm.weight, norm.bias]
    found = rated(model, "group-norm")
    wanted = expected(8, *rows(*stream), *columns(model.second.weight, model.head.weight))
    assert_equal({"outer": found["outer"]}, {"outer": wanted})


def test_each_unit_owns_all_columns_of_its_flattened_map():
    model = flattened()
    rows_of = rows(model[0].weight, model[0].bias, model[1].weight, model[1].bias)
    found = rated(model, "group-norm")
    assert_equal(found, {"0": expected(5, *rows_of, lambda unit: model[4].weight[:, 16 * unit : 16 * unit + 16])})


def test_columns_of_a_grouped_convolution_lie_in_their_own_half():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    first, second, third = model

    def column(unit):
        half = unit // 3
        return second.weight[2 * half : 2 * half + 2, unit % 3]

    found = rated(model, "group-norm")
    assert_equal({"0": found["0"]}, {"0": expected(6, *rows(first.weight, first.bias), column)})
    wanted = expected(4, *rows(second.weight, second.bias), *columns(third.weight))
    assert_equal({"1": found["1"]}, {"1": wanted})
