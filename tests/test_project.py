"""The promises that the project makes about its own files."""

import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import cutback
from tools.check_file_lengths import too_long

ROOT = Path(__file__).resolve().parent.parent


def test_no_file_outgrows_the_limit():
    assert too_long(ROOT) == []


def test_the_length_check_names_the_file_and_its_length(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "short.py").write_text("x = 1\n" * 3)
    (tmp_path / "src" / "long.py").write_text("x = 1\n" * 4)
    (tmp_path / "elsewhere.py").write_text("x = 1\n" * 9)
    assert too_long(tmp_path, limit=3) == [(Path("src/long.py"), 4)]


def test_rooms_import_only_rooms_below_them():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_ships_its_types():
    assert resources.files("cutback").joinpath("py.typed").is_file()


def test_the_installed_version_is_the_packages_own():
    assert metadata.version("cutback") == cutback.__version__
