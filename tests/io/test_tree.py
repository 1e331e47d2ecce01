"""Nests of values on disk: they come back bit for bit, and damage of any kind is noticed."""

import json
import math
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from cutback.errors import CorruptFile, SaveError, UnsupportedVersion
from cutback.io import folder as folders
from cutback.io.tree import load_tree, save_tree
from tests.helpers import plain


def nest() -> dict:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "numbers": [0, -1, 2**70, 0.1, -0.0, math.inf, True, None, "text", ""],
        "tuple": (1, (2.5, [])),
        "empty": {},
        3: {"whole-number key": 1},
        "tensors": [torch.zeros(0, 3), torch.tensor(1.5), torch.arange(6).view(2, 3), torch.tensor([True])],
        "types": [torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.float64, torch.uint8, torch.int32)],
        "optimizer": optimizer.state_dict(),
        "python": random.Random(1).getstate(),
        "ordered": OrderedDict(b=1, a=torch.tensor([math.nan])),
    }


def test_every_kind_of_value_comes_back(tmp_path) -> None:
    tree = nest()
    save_tree(tree, tmp_path / "a")
    again = load_tree(tmp_path / "a")
    assert repr(plain(again)) == repr(plain(tree))
    assert isinstance(again["tuple"], tuple)
    assert isinstance(again["tuple"][1], tuple)
    assert list(again) == list(tree)
    assert math.copysign(1, again["numbers"][4]) == -1
    assert again["numbers"][6] is True


@pytest.mark.parametrize("dimensions", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 0, 3, 2)])
def test_tensors_keep_their_order_in_memory(dimensions, tmp_path) -> None:
    tensor = torch.randn(2, 3, 4, 5).permute(dimensions)
    save_tree({"a": tensor, "sliced": tensor[..., ::2]}, tmp_path / "a")
    again = load_tree(tmp_path / "a")
    assert torch.equal(again["a"], tensor)
    assert again["a"].stride() == tensor.stride()
    assert torch.equal(again["sliced"], tensor[..., ::2])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"b": [object()]}}, r"state\.a\.b\.0 is a object"),
        ({"a": {(1, 2): 3}}, r"state\.a has the key \(1, 2\)"),
        ({"a": {1, 2}}, r"state\.a is a set"),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_nothing(value, message, tmp_path) -> None:
    with pytest.raises(SaveError, match=message):
        save_tree(value, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_any_flipped_byte_or_missing_part_is_noticed(tmp_path) -> None:
    save_tree({"a": torch.arange(4), "b": [1, 0.5]}, tmp_path / "a")
    for name in ("tree.json", "tensors.safetensors"):
        file = tmp_path / "a" / name
        whole = file.read_bytes()
        for place in range(0, len(whole), 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises((CorruptFile, UnsupportedVersion)):
                load_tree(tmp_path / "a")
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CorruptFile, match=name):
            load_tree(tmp_path / "a")
        file.unlink()
        with pytest.raises(CorruptFile, match="is not whole: No such file"):
            load_tree(tmp_path / "a")
        file.write_bytes(whole)
    assert load_tree(tmp_path / "a")["b"] == [1, 0.5]


def test_a_newer_version_is_refused(tmp_path) -> None:
    save_tree({}, tmp_path / "a")
    file = tmp_path / "a" / "tree.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))
    with pytest.raises(UnsupportedVersion, match="format version 2"):
        load_tree(tmp_path / "a")


def test_a_full_disk_leaves_nothing_and_what_was_there(tmp_path, monkeypatch) -> None:
    save_tree({"a": 1}, tmp_path / "a")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    for name in ("a", "b"):
        with pytest.raises(SaveError, match="No space left on device"):
            save_tree({"a": 2}, tmp_path / name)
    assert load_tree(Path(tmp_path / "a")) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
