"""The command line as a whole: help, version, exit codes, and the ways it ends."""

import json
import subprocess
import sys

import pytest

import cutback
from cutback.cli import check
from cutback.cli.main import main
from cutback.errors import DataError, NotEquivalent
from cutback.methods import methods
from cutback.scores import scores
from tests.cli.helpers import refusal


@pytest.mark.parametrize("command", ["prune", "resume", "check", "scores", "methods"])
def test_help_shows_examples_and_json(command, capsys) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"cutback {command} " in out.partition("Examples:")[2]
    assert "--json" in out
    assert not err


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments, capsys) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in ("prune", "check", "scores", "methods"))


def test_version_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "cutback", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cutback {cutback.__version__}\n", "")


def test_scores_are_listed_one_a_line_with_their_source(capsys) -> None:
    assert main(["scores"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split("  ")[0] == "score"
    assert [line.split()[0] for line in lines] == sorted(scores)
    assert next(line for line in lines if line.startswith("l1 ")).rstrip().endswith("Li 2016, section 3.1")
    assert main(["scores", "--json"]) == 0
    listed = {score["name"]: score for score in json.loads(capsys.readouterr().out)["scores"]}
    assert listed["l1"] == {
        "name": "l1",
        "summary": "Sum of the absolute weights of each filter.",
        "source": "Li 2016, section 3.1",
        "needs": ["weights"],
        "aggregate": "sum",
        "coupled": "sum",
    }


def test_methods_are_listed_one_a_line_with_their_paper(capsys) -> None:
    assert main(["methods"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split("  ")[0] == "method"
    assert [line.split()[0] for line in lines] == sorted(methods)
    assert next(line for line in lines if line.startswith("l1 ")).rstrip().endswith("ICLR 2017, arXiv:1608.08710")
    assert main(["methods", "--json"]) == 0
    listed = {method["name"]: method for method in json.loads(capsys.readouterr().out)["methods"]}
    assert listed["l1"]["about"]["title"] == "Pruning Filters for Efficient ConvNets"
    assert listed["l1"]["about"]["budget"] == "hits"
    settings = {setting["name"]: setting for setting in listed["l1"]["settings"]}
    meaning = settings["tolerance"].pop("meaning")
    assert settings["tolerance"] == {"name": "tolerance", "kind": "float", "default": 0.02, "required": False}
    assert main(["methods", "l1"]) == 0
    told = capsys.readouterr().out
    assert "Pruning Filters for Efficient ConvNets (Li et al., ICLR 2017, arXiv:1608.08710)" in told
    line = next(line for line in told.splitlines() if line.startswith("tolerance "))
    assert line.split()[1:3] == ["0.02", meaning.split()[0]]
    assert main(["methods", "l2"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prun"], "No such command 'prun'"),
        (["check"], "Missing argument 'MODEL'; see cutback check --help"),
        (["prune", "cutback:resnet20", "--bugdet", "macs=50%"], "No such option: --bugdet"),
        (["prune", "cutback:resnet20", "--finetune", "many"], "Invalid value for '--finetune'"),
        (["prune", "cutback:resnet20", "--round-to", "0"], "Invalid value for '--round-to'"),
    ],
)
def test_usage_errors_are_one_line(arguments, message, capsys) -> None:
    assert message in refusal(capsys, *arguments)


def test_exit_codes_tell_mistakes_from_bugs(monkeypatch, capsys) -> None:
    def raising(error):
        monkeypatch.setattr(check, "load_model", lambda *_, **__: (_ for _ in ()).throw(error))

    raising(DataError("several\n  lines"))
    assert refusal(capsys, "check", "cutback:lenet5") == "error: several lines"
    raising(KeyboardInterrupt())
    assert main(["check", "cutback:lenet5"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; nothing is left half-written"
    for bug in (ZeroDivisionError("bug"), NotEquivalent("bug")):
        raising(bug)
        with pytest.raises(type(bug)):
            main(["check", "cutback:lenet5"])


def test_a_bug_ends_the_process_with_1_and_a_traceback() -> None:
    code = (
        "import sys; from cutback.cli import check, main\n"
        "check.load_model = lambda *a, **k: 1 / 0\n"
        "sys.argv = ['cutback', 'check', 'cutback:lenet5']; main.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr
