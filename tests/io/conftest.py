"""A pruned network and its checkpoint, made once."""

import pytest

import cutback
from tests.io.helpers import pruned


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    model, plan = pruned()
    folder = tmp_path_factory.mktemp("original") / "small"
    cutback.save(model, plan, folder)
    return model.eval(), plan, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(original, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    for name, content in original[2].items():
        (folder / name).write_bytes(content)
    return folder
