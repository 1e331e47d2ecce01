"""The whole job on real pictures: a ResNet-20 trained on CIFAR-10 (JPEG), pruned and recovered on 5,000 of them."""

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from cutback.cli.main import main

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
EACH = {"train": 400, "test": 100}
"""Pictures of each class: 4,000 to train on, 1,000 for validation and test."""


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CUTBACK_LONG_TESTS"), reason="takes minutes: make long")
@pytest.mark.skipif(not (SHARED / "cifar10-jpeg.tar.xz").is_file(), reason=f"there is no CIFAR-10 in {SHARED}")
def test_a_trained_resnet20_is_pruned_on_5000_pictures(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    counts: dict[str, int] = {}
    with tarfile.open(SHARED / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            split, label = Path(member.name).parts[-3:-1] if member.isfile() else ("", "")
            key = f"{split}/{label}"
            if split in EACH and counts.get(key, 0) < EACH[split]:
                counts[key] = counts.get(key, 0) + 1
                place = tmp_path / "cifar" / split / label / Path(member.name).name
                place.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with place.open("wb") as file:
                    shutil.copyfileobj(content, file)
    assert sum(counts.values()) == 5000
    weights = SHARED / "cifar10_resnet_jpeg" / "resnet20.safetensors"
    options = [
        "--data",
        "imagefolder:cifar",
        "--normalise",
        "imagenet",
        "--weights",
        str(weights),
        "--batch-size",
        "128",
    ]
    options += ["--budget", "macs=50%", "--recover", "bn,least-squares,finetune:2", "--finetune-lr", "0.01", "--json"]
    assert main(["prune", "cutback:resnet20", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["train"] == 4000
    assert report["data"]["validation"] == report["data"]["test"] == 500
    assert report["dense"]["accuracy"] > 0.83  # 87.7 % on all 10,000 test pictures
    assert 0.49 <= report["final"]["macs"] / report["dense"]["macs"] <= 0.5
    assert report["final"]["accuracy"] > report["cut"]["accuracy"]
    with capsys.disabled():
        figures = {name: report[name]["accuracy"] for name in ("dense", "cut", "final")}
        sys.stdout.write(f"{figures} {report['recovery']}\n")
