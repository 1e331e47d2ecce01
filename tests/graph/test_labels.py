"""Label tensors and the store that unites them."""

import numpy as np
import torch

from cutback.graph.labels import NONE, Boundary, LabelStore, compact, core, spread, varies, varying_dimensions


def test_constant_dimensions_have_stride_zero_and_narrow_to_one() -> None:
    labels = torch.arange(4).view(1, 4, 1).expand(2, 4, 3)
    dense = labels.contiguous()
    assert varying_dimensions(dense) == [0, 1, 2]
    found = compact(dense)
    assert torch.equal(found, labels)
    assert varying_dimensions(found) == [1]
    assert core(found).shape == (1, 4, 1)
    assert not varies(found, 0)


def test_spread_puts_a_vector_along_one_dimension() -> None:
    found = spread(torch.tensor([5, 6]), 1, torch.Size([3, 2, 4]))
    assert found.shape == (3, 2, 4)
    assert found[2, :, 3].tolist() == [5, 6]


def test_united_labels_share_a_component_and_constants_join_nothing() -> None:
    store = LabelStore()
    first, second, third = store.fresh(3), store.fresh(3), store.fresh(1)
    store.unite(first, second)
    store.unite(torch.tensor([NONE]), third)
    components = store.components()
    assert (components[first] == components[second]).all()
    assert len(np.unique(components[first])) == 3
    assert components[third.item()] not in (*components[first], components[NONE])


def test_keeping_notes_each_label_once_and_never_the_constant() -> None:
    store = LabelStore()
    label = store.fresh(1)
    boundary = Boundary("aten::odd", "body", "because")
    store.keep(label.expand(2, 3), boundary)
    store.keep(torch.tensor([NONE]), boundary)
    ((found, reason),) = store.kept
    assert found.tolist() == label.tolist()
    assert str(reason) == "body : aten::odd: because"
