"""Write the golden files again and show what has changed: ``python -m tests.zoo.golden [NAME ...]``."""

import difflib
import sys

from tests.zoo.golden import GOLDEN, described, file_of


def main(names: list[str]) -> int:
    """Write the files of the named architectures, or of all; the exit code is 1 where one has changed."""
    unknown = sorted(set(names) - set(GOLDEN))
    if unknown:
        sys.stderr.write(f"no golden file is called {', '.join(unknown)}; there are {', '.join(GOLDEN)}\n")
        return 2
    changed = 0
    for name in names or GOLDEN:
        file, text = file_of(name), described(name)
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        if text != before:
            changed += 1
            file.write_text(text, encoding="utf-8")
            lines = difflib.unified_diff(before.splitlines(), text.splitlines(), "before", str(file), lineterm="", n=1)
            sys.stdout.write("\n".join(lines) + "\n" if before else f"new: {file}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{changed} of {len(names or GOLDEN)} files changed\n")
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
