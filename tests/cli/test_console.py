"""Progress: a bar on a terminal, plain lines elsewhere, nothing for what is over at once."""

import sys

import pytest

from cutback.cli import console


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by one that tests move."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_after_two_seconds_and_then_ever_more_rarely(clock, capsys) -> None:
    with console.Reporter().step("training") as progress:
        for seconds in range(20):
            clock[0] = 100.0 + seconds
            progress(seconds, 20, f"epoch {seconds}")
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [
        "training: epoch 2 (10%)",
        "training: epoch 7 (35%)",
        "training: epoch 17 (85%)",
        "training: 19.0 s",
    ]


def test_what_is_over_at_once_says_nothing(clock, capsys) -> None:
    with console.Reporter().step("reading"):
        clock[0] += 1.9
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_and_a_line_that_stays(monkeypatch, capsys) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "NOTEWORTHY_SECONDS", 0.0)
    with console.Reporter().step("training") as progress:
        progress(1, 4, "epoch 1")
    out, err = capsys.readouterr()
    assert not out
    assert "training: epoch 1" in err
    assert "25%" in err
    assert "training: 0.0 s" in err.splitlines()[-1]


def test_what_users_code_prints_stays_off_stdout(capsys) -> None:
    with console.stdout_kept_clean():
        sys.stdout.write("loading\n")
    assert capsys.readouterr() == ("", "loading\n")
