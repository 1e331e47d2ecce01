"""Imported by the server that forks test processes: it has done once what every run does, in a folder for a while."""

import contextlib
import io
import tempfile
from pathlib import Path

import accelerate  # noqa: F401 (slow to import)
import torch

from cutback.cli.main import main

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten(), nn.Linear(4, 10))
"""

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as _folder, contextlib.chdir(_folder):
    Path("net.py").write_text(NETWORK, encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["prune", "net.py:make", "--budget", "macs=70%", "--train", "1", "--recover", "none"])
