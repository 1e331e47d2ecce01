"""Training among several processes: as one would, with one plan for all, and without anyone left waiting."""

import pytest
import torch

from tests.train import ranks

# What four processes do to the last digits of sums of gradients.
CLOSE = {"rtol": 2e-3, "atol": 2e-4}


def trained(folder, count: int, **options) -> list[dict]:
    """Train in processes and return what each has written down."""
    place = folder / str(count)
    place.mkdir()
    codes = ranks.in_processes(count, _train, str(place), options)
    assert codes == [0] * count
    found = [torch.load(place / f"rank{rank}.pt") for rank in range(count)]
    assert all(part["ranks"] == count for part in found)
    return found


def _train(folder: str, options: dict) -> None:
    ranks.train(folder, **options)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_train_as_one_would_and_cut_alike(count, tmp_path) -> None:
    (alone,) = trained(tmp_path, 1, norm=False, prune=True)
    found = trained(tmp_path, count, norm=False, prune=True)
    assert alone["plan"] is not None
    for part in found:
        assert part["plan"] == alone["plan"]
        assert part["losses"] == pytest.approx(alone["losses"], rel=1e-3)
        for name, tensor in alone["weights"].items():
            torch.testing.assert_close(part["weights"][name], tensor, **CLOSE)
            assert torch.equal(part["weights"][name], found[0]["weights"][name])


@pytest.mark.slow
def test_with_batch_norms_the_accuracy_is_that_of_one_within_noise(tmp_path) -> None:
    (alone,) = trained(tmp_path, 1, norm=True, prune=True)
    found = trained(tmp_path, 2, norm=True, prune=True)
    assert found[0]["plan"] == found[1]["plan"]
    assert alone["validation"] > 0.8
    pictures = ranks.PICTURES
    noise = 2 * (2 * 0.25 * 0.75 / pictures) ** 0.5  # two standard deviations of a difference, at the least favourable
    assert abs(found[0]["validation"] - alone["validation"]) < noise
    assert found[0]["validation"] == found[1]["validation"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "raises",
            "RankFailed: rank 1 failed: DataError: reading a batch of the data failed: OSError: the disk is gone",
        ),
        ("dies", "RankFailed: a process that trains along has ended or does not answer"),
        ("hangs", "RankFailed: a process that trains along has ended or does not answer"),
    ],
)
def test_nobody_waits_for_a_process_that_fails(how, message, tmp_path) -> None:
    codes = ranks.in_processes(2, ranks.fail, str(tmp_path), how)
    assert codes[0] == 0
    seconds, _, told = (tmp_path / "rank0.txt").read_text().partition(" ")
    assert message in told
    assert float(seconds) < 30
    if how == "raises":
        assert codes[1] == 0
        assert "DataError: reading a batch" in (tmp_path / "rank1.txt").read_text()
