"""The promises of a method's interface, each as a check that raises ``ContractBroken`` where it is not kept."""

import inspect
import json
import re
from collections.abc import Callable
from importlib import resources
from typing import get_args

from cutback.errors import ContractBroken
from cutback.methods import describe, methods
from cutback.methods.about import BudgetKind, Need
from cutback.testing.case import MethodCase
from cutback.testing.cutting import check_budget, check_proof
from cutback.testing.going_on import check_determinism, check_finishes, check_resume
from cutback.testing.leaving import check_no_residue
from cutback.testing.recorded import Recorded
from cutback.testing.refusing import check_misuse
from cutback.testing.require import require

SECTIONS = ("Paper", "Steps", "Defaults", "Deviations", "How to run", "Numbers obtained")
"""What the ``README.md`` of a method's folder has as second-level headings."""


def check_metadata(run: Recorded) -> None:
    """Paper, summary, settings and README are there and can be written as JSON."""
    found, entry = describe(run.name), methods.get(run.name)
    about = found.about
    require(about.title and about.authors and about.where, "its About lacks title, authors or where")
    require(1980 < about.year < 2100, f"its About says year {about.year}")
    require(about.budget in get_args(BudgetKind), f"its About has no such budget kind: {about.budget!r}")
    known = set(get_args(Need)) & set(inspect.signature(entry).parameters)
    require(set(about.needs) <= known, f"its About needs something unknown: {about.needs}")
    require(re.fullmatch(r"[A-Z].{10,100}\.", found.summary), f"its docstring begins with {found.summary!r}")
    kinds = {type(setting.default) for setting in found.settings}
    require(kinds <= {bool, int, float, str, type(None)}, f"settings have defaults of types {kinds}")
    written = {setting.name: setting.default for setting in found.settings}
    require(set(run.case.settings) <= set(written), f"the case sets what is no setting: {set(run.case.settings)}")
    require(json.loads(json.dumps(written)) == written, "settings cannot be written as JSON")
    folder = resources.files(entry.__module__.rpartition(".")[0])
    page = folder.joinpath("README.md")
    require(page.is_file(), f"there is no README.md beside {entry.__module__}")
    titles = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    missing = [title for title in SECTIONS if title not in titles]
    require(not missing, f"its README.md lacks the sections {missing}")


CHECKS: dict[str, Callable[[Recorded], None]] = {
    "metadata": check_metadata,
    "finishes": check_finishes,
    "determinism": check_determinism,
    "resume": check_resume,
    "no residue": check_no_residue,
    "proof": check_proof,
    "budget": check_budget,
    "misuse": check_misuse,
}
"""All checks by name; each takes one recorded run."""


def check_method(name: str, case: MethodCase) -> None:
    """Check all promises of a registered method but those about several processes.

    Args:
        name: the method's.
        case: what it is tried on.

    Raises:
        ContractBroken: a promise is not kept; says which.
        CutbackError: the method failed on its case.
    """
    run = Recorded(name, case)
    for promise, check in CHECKS.items():
        try:
            check(run)
        except ContractBroken as error:
            raise ContractBroken(f"method {name!r}, {promise}: {error}") from error
