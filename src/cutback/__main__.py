"""``python -m cutback``: the same as the command ``cutback``."""

from cutback.cli.main import run

if __name__ == "__main__":
    run()
