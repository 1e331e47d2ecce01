"""Damaged, missing, mixed and future checkpoint files, each its own clear error."""

import copy
import hashlib
import json

import pytest
import torch

import cutback
from cutback.errors import CorruptFile, UnsupportedVersion
from tests.helpers import randomised, residual
from tests.io.helpers import Tied, pruned


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_named(saved, name, share):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CorruptFile, match=name):
        cutback.load(saved, residual)


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
@pytest.mark.parametrize("more", [b"\0", b"x"])
def test_a_file_with_more_at_its_end_is_named(saved, name, more):
    (saved / name).write_bytes((saved / name).read_bytes() + more)
    with pytest.raises(CorruptFile, match=name):
        cutback.load(saved, residual)


def test_no_flipped_byte_in_the_weights_goes_unseen(saved):
    path = saved / "model.safetensors"
    content = path.read_bytes()
    for position in [*range(0, len(content), len(content) // 40), 8, len(content) - 1]:
        path.write_bytes(flipped(content, position, 0xFF))
        with pytest.raises(CorruptFile, match=r"model\.safetensors does not match its recorded hash"):
            cutback.load(saved, residual)


@pytest.mark.parametrize("mask", [1, 2, 0x20, 0xFF])
def test_no_flipped_byte_in_the_plan_goes_unseen(original, saved, mask):
    """Each is an error about this file, or falls between two words of JSON and changes nothing."""
    path = saved / "plan.json"
    content = path.read_bytes()
    whole = json.loads(content)
    for position in range(0, len(content), 7):
        broken = flipped(content, position, mask)
        path.write_bytes(broken)
        if loads_the_same(broken, whole):
            continue
        with pytest.raises((CorruptFile, UnsupportedVersion), match=r"plan\.json|format version"):
            cutback.load(saved, residual)


@pytest.mark.parametrize(
    ("written", "altered"),
    [
        (b'"version": 1', b'"version": 0'),
        (b'"version": 1', b'"version": true'),
        (b'"alias.bias": "again.bias"', b'"alias.bias": "first.bias"'),
        (b'"alias.bias"', b'"alias.bibs"'),
        (b'"weights_sha256": "', b'"weights_sha256": "0'),
        (b'"sha256": "', b'"sha256": "0'),
        (b'"aliases"', b'"alia5es"'),
    ],
)
def test_every_entry_of_the_document_is_protected(tmp_path, written, altered):
    model, plan = pruned(lambda: randomised(Tied()), "channels=50%")
    cutback.save(model, plan, tmp_path / "small")
    path = tmp_path / "small" / "plan.json"
    content = path.read_bytes()
    assert content.count(written) == 1
    path.write_bytes(content.replace(written, altered))
    with pytest.raises(CorruptFile, match=r"plan\.json"):
        cutback.load(tmp_path / "small", Tied)


def flipped(content, position, mask):
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def loads_the_same(content, whole):
    try:
        return json.loads(content) == whole
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CorruptFile, match=f"has no {name}"):
        cutback.load(saved, residual)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CorruptFile, match="nowhere has no plan"):
        cutback.load(tmp_path / "nowhere", residual)


def test_a_future_version_asks_for_an_upgrade(saved):
    document = json.loads((saved / "plan.json").read_text())
    (saved / "plan.json").write_text(json.dumps({**document, "version": 3, "something": "new"}))
    with pytest.raises(UnsupportedVersion, match="format version 3, this cutback reads up to 2; upgrade"):
        cutback.load(saved, residual)


def test_files_of_two_checkpoints_do_not_mix(original, saved, tmp_path):
    model, plan, _ = original
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias.add_(1)
    cutback.save(other, plan, tmp_path / "other")
    (saved / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(CorruptFile, match="does not match its recorded hash"):
        cutback.load(saved, residual)


def test_hashes_are_those_of_the_files(saved):
    document = json.loads((saved / "plan.json").read_text())
    assert document["weights_sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
