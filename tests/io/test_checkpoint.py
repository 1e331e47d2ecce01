"""Checkpoints: whole or not at all, and bit-identical when read."""

import copy
import os
from pathlib import Path

import pytest
import torch
from torch import nn, optim

import cutback
from cutback.errors import ArchitectureMismatch, SaveError
from tests.helpers import chain, image, randomised, residual, train_step
from tests.io.helpers import Tied, pruned, same_outputs


def test_a_checkpoint_gives_the_same_bits(original, saved):
    model, _, files = original
    assert set(files) == {"model.safetensors", "plan.json"}
    loaded = cutback.load(saved, residual)
    assert same_outputs(loaded, model)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_trained_twice_cut_half_precision_model_gives_the_same_bits(tmp_path):
    model, first = pruned()
    train_step(model, optim.Adam(model.parameters()))
    graph = cutback.trace(model, image())
    second = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, second)
    model.bfloat16()
    with pytest.raises(ArchitectureMismatch, match=r"not what the plan leads to.*first\.then\(second\)"):
        cutback.save(model, first, tmp_path / "small")
    assert list(tmp_path.iterdir()) == []
    cutback.save(model, first.then(second), tmp_path / "small")
    loaded = cutback.load(str(tmp_path / "small"), residual)
    assert loaded.stem.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.eval()(image().bfloat16()), model.eval()(image().bfloat16()))


def test_the_mode_and_frozen_parameters_are_those_of_the_fresh_instance(original, saved):
    def build():
        model = residual().eval()
        model.stem.requires_grad_(False)
        return model

    loaded = cutback.load(saved, build)
    assert not loaded.training
    assert [name for name, parameter in loaded.named_parameters() if not parameter.requires_grad] == ["stem.weight"]


def test_tied_weights_stay_tied(tmp_path):
    model, plan = pruned(lambda: randomised(Tied()), "channels=50%")
    assert model.again.in_channels == 4
    cutback.save(model, plan, tmp_path / "small")
    loaded = cutback.load(tmp_path / "small", Tied)
    assert same_outputs(loaded, model)
    assert loaded.alias is loaded.again
    assert loaded.down.weight is loaded.up.weight
    assert cutback.measure.params(loaded) == cutback.measure.params(model)


def test_a_folder_with_content_is_refused(original, saved):
    model, plan, files = original
    with pytest.raises(SaveError, match="not empty; name another folder or pass overwrite=True"):
        cutback.save(model, plan, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == files


def test_an_empty_folder_and_missing_parents_will_do(original, tmp_path):
    model, plan, _ = original
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        cutback.save(model, plan, folder)
        assert same_outputs(cutback.load(folder, residual), model)


def test_overwriting_keeps_other_peoples_files(original, saved):
    model, plan, _ = original
    (saved / "notes.txt").write_text("keep me")
    (saved / "logs").mkdir()
    (saved / "logs" / "run.log").write_text("me too")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias.add_(1)
    cutback.save(other, plan, saved, overwrite=True)
    assert same_outputs(cutback.load(saved, residual), other)
    assert sorted(path.name for path in saved.iterdir()) == ["logs", "model.safetensors", "notes.txt", "plan.json"]
    assert (saved / "notes.txt").read_text() == "keep me"
    assert (saved / "logs" / "run.log").read_text() == "me too"
    assert [path.name for path in saved.parent.iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (chain, r"another architecture than this Sequential \(it has no"),
        (lambda: pruned()[0], r"another architecture than this Residual \(\S+ has shape"),
        (lambda: nn.Sequential(residual()), "another architecture"),
        (dict, "build returned dict"),
    ],
)
def test_another_architecture_is_refused(saved, build, says):
    with pytest.raises(ArchitectureMismatch, match=says):
        cutback.load(saved, build)


def test_a_model_the_plan_does_not_lead_to_is_not_saved(original, tmp_path):
    with pytest.raises(ArchitectureMismatch, match="not what the plan leads to"):
        cutback.save(residual(), original[1], tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_cannot_be_written(original, tmp_path):
    model, plan, _ = original
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"cannot write .*file/small.*name a folder you may write to"):
        cutback.save(model, plan, tmp_path / "file" / "small")
    with pytest.raises(SaveError, match="file is a file; name a folder"):
        cutback.save(model, plan, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder_is_named(original, tmp_path):
    model, plan, _ = original
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError, match=r"cannot write.*name a folder you may write to"):
            cutback.save(model, plan, tmp_path / "small")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "rename", "chmod"])
@pytest.mark.parametrize("present", [True, False])
def test_a_failure_in_the_middle_leaves_nothing_half_written(original, saved, monkeypatch, where, error, present):
    model, plan, files = original
    folder = saved if present else saved.parent / "new"
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 2 or where == "chmod" or not present:
            raise error
        return real(*arguments)

    owner = os if where == "fsync" else Path
    real = getattr(owner, where)
    monkeypatch.setattr(owner, where, failing)
    with pytest.raises(SaveError if isinstance(error, OSError) else KeyboardInterrupt):
        cutback.save(model, plan, folder, overwrite=True)
    monkeypatch.undo()
    assert [path.name for path in saved.parent.iterdir()] == ["small"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == files


def test_layers_of_the_user_s_own_class_are_saved_and_loaded(tmp_path):
    class OwnNorm(nn.LayerNorm):
        pass

    class OwnConvolution(nn.Conv2d):
        pass

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm, self.head = OwnConvolution(3, 8, 1), OwnNorm(8), nn.Linear(8, 2)

        def forward(self, images):
            return self.head(self.norm(self.stem(images).movedim(1, 3)).relu())

    model, images = Own(), torch.randn(2, 3, 6, 6)
    graph = cutback.trace(model, images)
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan)
    assert model.norm.normalized_shape == (4,)
    cutback.save(model, plan, tmp_path / "own")
    assert torch.equal(cutback.load(tmp_path / "own", build=Own)(images), model(images))


def test_a_loaded_model_is_cut_further_and_saved_again(tmp_path):
    model = chain()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget="channels=75%")
    cutback.apply_(graph, plan)
    cutback.save(model, plan, tmp_path / "once")

    again = cutback.load(tmp_path / "once", build=chain)
    graph = cutback.trace(again, image())
    further = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, further)
    cutback.save(again, cutback.load_plan(tmp_path / "once").then(further), tmp_path / "twice")
    loaded = cutback.load(tmp_path / "twice", build=chain)
    assert torch.equal(loaded.eval()(image()), again.eval()(image()))
