"""The coupling of twelve architectures is the one that was reviewed."""

import pytest

from tests.zoo.golden import GOLDEN, described, file_of


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_the_coupling_is_the_reviewed_one(name: str) -> None:
    reviewed = file_of(name).read_text(encoding="utf-8").splitlines()
    found = described(name).splitlines()
    assert found == reviewed, "to review a change: python -m tests.zoo.golden, then git diff"


def test_every_file_belongs_to_an_architecture() -> None:
    assert {file.stem for file in file_of("").parent.glob("*.json")} == set(GOLDEN)
