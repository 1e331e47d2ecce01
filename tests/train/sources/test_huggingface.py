"""Hugging Face datasets without the Hub: parquet files, folders, and what is refused."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from cutback.errors import DataError
from cutback.train import load_data


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    """Keep what the library caches out of the user's folder."""
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(256, size=(5, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def table(count: int, *, start: int = 0, mode: str = "RGB", labels: list[Any] | None = None) -> datasets.Dataset:
    features = datasets.Features(
        {
            "number": datasets.Value("int64"),
            "img": datasets.Image(),
            "fine": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "number": list(range(count)),
            "img": [picture(start + index, mode) for index in range(count)],
            "fine": labels or [index % 2 for index in range(count)],
        },
        features=features,
    )


def test_parquet_files_by_split(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    table(6).to_parquet(files / "train-00000-of-00002.parquet")
    table(4, start=6).to_parquet(files / "train-00001-of-00002.parquet")
    table(4, start=20).to_parquet(files / "test-00000-of-00001.parquet")
    data = load_data(f"hf:parquet@{files}/*.parquet", seed=0, normalise="none")
    assert (data.class_names, data.input_shape, str(data.augmentation)) == (("cat", "dog"), (3, 5, 6), "flip")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 2, 4]
    images, labels = data.test[:]
    assert labels.tolist() == [0, 1, 0, 1]
    for index, image in enumerate(images):
        expected = torch.tensor(np.asarray(picture(20 + index))).permute(2, 0, 1)
        assert torch.equal((image * 255).round().to(torch.uint8), expected)
    listed = ",".join(str(file) for file in sorted(files.iterdir()))
    assert torch.equal(load_data(f"hf:parquet@{listed}", seed=0, normalise="none").train[:][0], data.train[:][0])


def test_a_folder_with_grey_pictures_and_a_split_without_labels(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    table(10, mode="L").to_parquet(folder / "train.parquet")
    table(4, start=10, mode="L").to_parquet(folder / "validation.parquet")
    table(3, start=14, mode="L", labels=[-1] * 3).to_parquet(folder / "test.parquet")
    shown = datasets.are_progress_bars_disabled()
    data = load_data(f"hf:{folder}", seed=0)
    assert datasets.are_progress_bars_disabled() == shown
    assert (data.input_shape, str(data.augmentation)) == ((1, 5, 6), "none")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [8, 4, 2]
    assert data.notes == (f"the test split of hf:{folder} has no labels and is left out",)


def test_files_that_other_programs_wrote_hold_bytes_and_numbers(tmp_path: Path) -> None:
    rows = []
    for index in range(9):
        buffer = io.BytesIO()
        picture(index).save(buffer, format="PNG")
        rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "label": index % 3})
    plain = datasets.Dataset.from_list(rows)
    assert not isinstance(plain.features["image"], datasets.Image)
    plain.to_parquet(tmp_path / "some.parquet")
    data = load_data(f"hf:parquet@{tmp_path}/some.parquet", seed=0)
    assert (data.num_classes, data.class_names, data.input_shape) == (3, ("0", "1", "2"), (3, 5, 6))
    assert len(data.train) == 7


def test_what_cannot_be_had_is_refused(tmp_path: Path) -> None:
    for spec, message in (
        ("hf:", "write hf:NAME, hf:NAME@CONFIGURATION or hf:parquet@FILES"),
        ("hf:parquet", "write hf:NAME"),
        (f"hf:parquet@{tmp_path}/no*.parquet", "there is no file .*no"),
        ("hf:cutback/there-is-none", "cannot load 'hf:cutback/there-is-none'"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            load_data(spec, seed=0)
        assert "\n" not in str(caught.value)
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"cannot load 'hf:parquet@.*bad\.parquet'"):
        load_data(f"hf:parquet@{tmp_path}/bad.parquet", seed=0)
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(DataError, match=r"no column of pictures among text, label"):
        load_data(f"hf:parquet@{tmp_path}/text.parquet", seed=0)
    table(5).remove_columns("fine").to_parquet(tmp_path / "unlabelled.parquet")
    with pytest.raises(DataError, match=r"no column of integer classes among number, img"):
        load_data(f"hf:parquet@{tmp_path}/unlabelled.parquet", seed=0)
    table(3, labels=[-1, -1, -1]).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"the training split of .* has no labels"):
        load_data(f"hf:parquet@{tmp_path}/none.parquet", seed=0)
