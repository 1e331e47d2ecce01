"""Imported by the server that forks test processes: it has done once what every run does, in a folder for a while."""

import contextlib
import io
import os
import tempfile

import torch

from cutback.cli.main import main

torch.set_num_threads(1)
_here = os.getcwd()
with tempfile.TemporaryDirectory() as _folder, contextlib.redirect_stderr(io.StringIO()):
    os.chdir(_folder)
    with open("net.py", "w", encoding="utf-8") as _file:
        _file.write("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten(), nn.Linear(4, 10))\n")
    with contextlib.redirect_stdout(io.StringIO()):
        main(["prune", "net.py:make", "--budget", "macs=70%", "--train", "1", "--recover", "none"])
    os.chdir(_here)
