"""The page of all methods: what it runs exists, and what it says is what was found."""

import itertools

from benchmarks.methods import ENTRIES, page, wanted
from cutback.methods import describe, methods


def test_every_method_has_rows_with_settings_that_it_has() -> None:
    assert {name for name, entry in ENTRIES.items() if not entry.method} == set(methods)
    for row, entry in ENTRIES.items():
        name = entry.method or row
        known = {setting.name for setting in describe(name).settings}
        assert {setting.partition("=")[0] for setting in entry.settings} <= known
        assert entry.budget is (describe(name).about.budget in {"hits", "stops_below"})


def test_all_methods_get_the_same_epochs_and_budgets() -> None:
    rows = wanted("digits", ["l1", "taylor"], [50], [0, 1])
    assert [(row.method, row.seed) for row in rows] == [("l1", 0), ("l1", 1), ("taylor", 0), ("taylor", 1)]
    for row in rows:
        arguments = row.arguments("dense.safetensors")
        given = dict(itertools.pairwise(arguments))
        assert int(given["--method-epochs"]) + int(given["--finetune"]) == 20
        assert given["--budget"] == "macs=50%"
        assert given["--seed"] == str(row.seed)


def test_a_line_holds_the_mean_of_its_seeds_and_their_range() -> None:
    found = [
        {
            "data": "digits",
            "method": "l1",
            "share": 50,
            "seed": seed,
            "command": f"cutback prune --seed {seed}",
            "macs": 0.5,
            "params": 0.4,
            "latency": [2.0, 1.0],
            "seconds": 10.0,
            "machine": "a machine",
            "accuracy": {"dense": 0.9, "cut": cut, "final": final},
        }
        for seed, cut, final in ((0, 0.2, 0.8), (1, 0.4, 0.9))
    ]
    kept = {**found[0], "method": "gradient-pruning", "share": None, "macs": 1.0, "density": 0.25}
    refused = {**found[0], "method": "aofp", "refused": "error: out of reach", "command": "cutback prune --seed 9"}
    text = page([*found, kept, refused])
    assert "- aofp refuses: error: out of reach" in text
    assert "| 50 % | l1 | 0, 1 | 90.0 | 30.0 | 85.0 (80.0 to 90.0) | 50.0 % | 2.00 → 1.00 | 10 |" in text
    assert "| 100.0 %; backward 25 %, training 50 % |" in text
    assert "cutback prune --seed 0\ncutback prune --seed 1" in text
