"""``cutback prune`` with tasks of the user's own, recovery chains, methods, and among several processes."""

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch

import cutback
from cutback.cli.main import main
from cutback.surgery.initialise import start_anew
from cutback.train import RunFolder
from tests.cli.helpers import refusal, write
from tests.resuming.killing import NETWORK
from tests.resuming.processes import events, part_of, state_of, weights
from tests.train import iterative, ranks

REGRESSION = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 1))

def datasets():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(240, 1, 8, 8, generator=generator)
    whole = torch.utils.data.TensorDataset(pictures, pictures[:, :, 2:4, 2:4].mean((2, 3)))
    return [torch.utils.data.Subset(whole, range(start, start + 80)) for start in (0, 80, 160)]

def split():
    train, validation, test = datasets()
    return train, validation, test
"""
SLIM = """
from torch import nn

def make():
    convolutions = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""
TASK = """
import torch

higher_is_better = False

def loss(outputs, targets):
    return (outputs - targets).square().mean()

def metric(model, batches):
    return sum(float((model(inputs) - targets).square().sum()) for inputs, targets in batches) / 80
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "net.py", NETWORK)
    iterative.register()
    yield tmp_path
    iterative.unregister()


def test_a_task_of_the_users_own_is_what_counts(folder, capsys) -> None:
    write(folder / "my.py", REGRESSION)
    write(folder / "task.py", TASK)
    options = ["--data", "my.py:split", "--task", "task.py", "--budget", "macs=60%", "--train", "6", "--lr", "0.02"]
    assert main(["prune", "my.py:make", *options, "--recover", "finetune:3", "--finetune-lr", "0.02"]) == 0
    out = capsys.readouterr().out
    report = json.loads(Path("runs/make/report.json").read_text())
    assert report["task"] == {"name": "task", "higher_is_better": False}
    assert "accuracy" not in json.dumps(report)
    assert "accuracy" not in out
    row = report["recovery"][0]
    assert row["validation_after"] <= row["validation_before"]
    assert report["final"]["metric"] < 0.2
    assert report["baseline"]["chosen_validation_metric"] <= report["baseline"]["last_validation_metric"]
    assert f"{report['final']['metric']:.4g}" in out


def test_the_chain_the_last_epoch_and_the_log_are_reported(folder, capsys) -> None:
    options = [
        "--budget",
        "macs=50%",
        "--train",
        "3",
        "--recover",
        "bn,distill:3:temperature=2",
        "--finetune-lr",
        "0.2",
    ]
    options += ["--schedule", "constant", "--tensorboard", "--out", "out", "--json"]
    assert main(["prune", "net.py:make", *options]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [row["step"] for row in report["recovery"]] == ["bn", "distill:3:temperature=2"]
    first, second = report["recovery"]
    assert first["changed"] == 2
    assert first["validation_after"] == second["validation_before"]
    assert second["validation_after"] == report["final"]["validation_accuracy"]
    assert report["finetune"]["epochs"] == 3
    assert report["final"]["last_epoch_validation_accuracy"] == second["last_validation_accuracy"]
    logged = events(folder / "out")
    epochs = [event for event in logged if event["event"] == "epoch"]
    assert [event["training"] for event in epochs] == ["baseline"] * 3 + ["recovery 2"] * 3
    assert epochs[-1]["validation"] == second["last_validation_accuracy"]
    assert logged[-1]["event"] == "finished"
    assert list((folder / "out" / "tensorboard").iterdir())
    lines = [line for line in err.splitlines() if line.startswith("distill, 3 epochs: epoch")]
    assert len(lines) == 3
    assert "pictures/s" in lines[0]


def test_a_method_prunes_in_the_command(capsys) -> None:
    options = [
        "--budget",
        "macs=60%",
        "--train",
        "1",
        "--finetune",
        "1",
        "--method",
        iterative.NAME,
        "--set",
        "portions=3",
    ]
    assert main(["prune", "net.py:make", *options, "--method-epochs", "1", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert "proven: equal to the original with the removed channels silenced, at each cut of the method" in out
    report = json.loads(Path("runs/make/report.json").read_text())
    assert report["method"] | {"settings": {"portions": "3"}, "finished": True} == report["method"]
    assert report["cut"]["macs"] <= 0.6 * report["dense"]["macs"]
    assert len(report["plan"]["budgets"]) == 3


def test_slimming_in_the_command_logs_and_draws_its_scales(capsys) -> None:
    write(Path("slim.py"), SLIM)
    options = ["--method", "slimming", "--budget", "channels=50%", "--train", "1", "--method-epochs", "2", "--quiet"]
    settings = ["--set", "sparsity=0.01", "--set", "initial-scale=0.5"]
    assert main(["prune", "slim.py:make", *options, *settings, "--finetune", "0", "--tensorboard"]) == 0
    assert "run-time memory, bytes, batch" in capsys.readouterr().out
    told = [event["method"] for event in events(Path("runs/make")) if event.get("training") == "method"]
    assert [sum(found["scales"]["counts"]) for found in told] == [16, 8]
    assert told[0]["pull"] > 0
    drawing = Path("runs/make/scales.svg").read_text()
    assert "epoch 1" in drawing
    assert "epoch 2" in drawing
    report = json.loads(Path("runs/make/report.json").read_text())
    assert report["final"]["memory"] < report["dense"]["memory"]
    assert report["plan"]["costs"]["channels"] == [16, 8]


def test_what_snpfi_costs_is_told_before_it_begins_and_what_it_finds_after(capsys) -> None:
    options = ["--method", "snpfi", "--budget", "macs=60%", "--train", "1", "--finetune", "0"]
    settings = ["--set", "images=16", "--set", "triples=2", "--set", "block=4"]
    assert main(["prune", "net.py:make", *options, *settings]) == 0
    told = next(line for line in capsys.readouterr().err.splitlines() if "coalitions" in line)
    (costs,) = (event for event in events(Path("runs/make")) if event["event"] == "forecast")
    figures = ", ".join(f"{costs[name]:,} {name}" for name in ("coalitions", "passes", "macs"))
    assert told == f"snpfi, 0 epochs: at most {figures}"
    report = json.loads(Path("runs/make/report.json").read_text())
    found = report["method"]["found"]
    assert 0 < found["passes"] <= costs["passes"]
    assert found["figure_recovered"] == report["cut"]["validation_accuracy"]
    assert report["cut"]["macs"] <= 0.6 * report["dense"]["macs"]


def test_functionality_in_the_command_keeps_its_pictures_in_the_runs_folder(capsys) -> None:
    options = ["--method", "functionality", "--budget", "macs=60%", "--train", "1", "--finetune", "0"]
    settings = ["--set", "ascent-steps=2", "--set", "images=64", "--method-epochs", "1"]
    assert main(["prune", "net.py:make", *options, *settings, "--quiet"]) == 0
    capsys.readouterr()
    report = json.loads(Path("runs/make/report.json").read_text())
    names = {path.name for path in Path("runs/make/functionality").iterdir()}
    assert {"contact_sheet.png", "contact_sheet_after.png", "functions.json", "0.0.png"} <= names
    assert report["method"]["found"]["drift"].keys() == report["method"]["found"]["layers"].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "iterativ"], "no method is called 'iterativ'"),
        (["--method", iterative.NAME, "--set", "portion=3"], "has no setting 'portion'; did you mean 'portions'?"),
        (["--method", iterative.NAME, "--set", "portions"], "cannot read --set 'portions'; write --set NAME=VALUE"),
        (["--method", iterative.NAME, "--set", "portions=many"], "write a value of type int"),
        (["--method", iterative.NAME, "--score", "l2"], "--score is for a single cut, but --method iterative-test"),
        (["--set", "portions=3"], "--set and --method-epochs are for --method"),
        (["--recover", "fine-tune:3"], "no recovery step is called 'fine-tune'; did you mean 'finetune'"),
        (["--recover", "finetune"], "trains and needs its epochs; write finetune:10"),
        (["--task", "none.py"], "none.py"),
        (["--schedule", "cosin"], "schedule is 'cosin'; did you mean 'cosine'"),
        (["--precision", "fp16"], "fp16 needs a GPU"),
        (["--method", iterative.NAME, "--set", "steps=9999"], "has not reached its budget in 1 epochs"),
    ],
)
def test_what_cannot_be_done_is_said(options, message, folder, capsys) -> None:
    budget = ["--budget", "macs=60%", "--train", "1", "--finetune", "0"]
    more = ["--method-epochs", "1"] if "--method" in options else []
    assert message in refusal(capsys, "prune", "net.py:make", *budget, *options, *more)
    if "steps=9999" not in options:
        assert sorted(path.name for path in folder.iterdir()) == ["net.py"]


def _prune(folder: str, arguments: list[str]) -> None:
    rank = os.environ["RANK"]
    with (
        contextlib.chdir(folder),
        Path(f"out{rank}.txt").open("a", encoding="utf-8") as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        code = main(arguments)
    sys.exit(code)


@pytest.mark.slow
def test_two_processes_write_one_run_and_go_on_with_it_together(folder) -> None:
    options = ["--budget", "macs=60%", "--train", "2", "--recover", "bn,finetune:1", "--method", iterative.NAME]
    command = ["prune", "net.py:make", *options, "--method-epochs", "2", "--checkpoint-steps", "5"]
    assert ranks.in_processes(2, _prune, str(folder), [*command, "--out", "whole"]) == [0, 0]
    assert "epoch" not in (folder / "out1.txt").read_text()
    report = json.loads((folder / "whole" / "report.json").read_text())
    assert report["final"]["macs"] <= 0.6 * report["dense"]["macs"]
    killed = folder / "killed"

    def reached() -> bool:
        """Whether a checkpoint was made while the method was pruning."""
        return part_of(killed) == 1 and bool(state_of(killed)["training"])

    assert ranks.in_processes(2, _prune, str(folder), [*command, "--out", "killed"], until=reached) == [None, None]
    state = RunFolder(killed).latest()
    assert len(state["training"]["ranks"]) == 2
    first, second = (rank["random"]["torch"] for rank in state["training"]["ranks"])
    assert not torch.equal(first, second)
    assert ranks.in_processes(2, _prune, str(folder), ["resume", "killed"]) == [0, 0]
    assert weights(killed) == weights(folder / "whole")
    assert events(killed) == events(folder / "whole")


def test_widths_are_found_told_and_trained_from_scratch(capsys) -> None:
    settings = [f"{name}={value}" for name, value in {"half": 6, "warm-up": 0, "threshold": 0.5}.items()]
    options = ["--method", "aofp", *(part for setting in settings for part in ("--set", setting))]
    command = ["prune", "net.py:make", *options, "--train", "1", "--method-epochs", "1", "--finetune", "1", "--rewind"]
    assert main([*command, "--finetune-lr", "1e-9", "--out", "out"]) == 0
    shown = capsys.readouterr().out
    report = json.loads(Path("out/report.json").read_text())
    told = report["method"]["records"]
    (first, _), (second, _) = report["plan"]["kept"].values()
    assert (told["width of 0"], told["width of 3"]) == (first, second)
    assert first + second < 8 + 12
    assert told["scoring_macs"] > 0
    assert f"aofp: decisions {told['decisions']}," in shown
    assert f"width of 0 {first}, width of 3 {second}" in shown.replace("\n", " ")
    assert "rewound: the final network was trained from scratch" in shown
    logged = events(Path("out"))
    assert [event["event"] for event in logged].count("rewound") == 1
    (last,) = (event["method"] for event in logged if event.get("training") == "method")
    assert len(last["history"]) == told["decisions"]
    assert last["history"][-1]["macs"] == report["cut"]["macs"] / report["dense"]["macs"]
    namespace: dict = {}
    exec(NETWORK, namespace)  # noqa: S102
    fresh = cutback.load("out", build=namespace["make"])
    trained = {name: value.clone() for name, value in fresh.named_parameters()}
    start_anew(fresh, seed=0)
    for name, value in fresh.named_parameters():
        assert torch.allclose(value, trained[name], atol=1e-5), "drawn anew, and hardly trained at that rate"


def test_new_weights_that_nothing_trains_are_refused(capsys) -> None:
    said = refusal(capsys, "prune", "net.py:make", "--budget", "macs=60%", "--rewind", "--finetune", "0")
    assert "--rewind draws new weights, and nothing trains them" in said


def test_the_exact_oracle_prunes_in_the_command_and_tells_what_that_took(capsys) -> None:
    options = ["--method", "oracle", "--set", "greedy=true", "--set", "removed=4", "--budget", "macs=60%"]
    assert main(["prune", "net.py:make", *options, "--train", "1", "--finetune", "0", "--method-epochs", "0"]) == 0
    report = json.loads(Path("runs/make/report.json").read_text())
    assert report["cut"]["macs"] <= 0.6 * report["dense"]["macs"]
    spent = report["method"]["records"]["oracle_macs"]
    assert spent > 5 * report["data"]["train"] * report["dense"]["macs"]
    assert f"oracle: oracle_macs {spent:,}" in capsys.readouterr().out
    said = refusal(capsys, "prune", "net.py:make", *options, "--method-epochs", "1")
    assert "cuts without training; leave --method-epochs out" in said
