"""Pages of experiments say which bounds were met."""

from benchmarks.pages import page


def test_a_page_has_what_was_tried_its_tables_and_each_bound() -> None:
    text = page(
        "Tried", "First.\n\nWhat was tried.", [("Found", ["a", "b"], [["1", "2"]])], [(True, "x"), (False, "y")]
    )
    lines = text.splitlines()
    assert lines[0] == "# Tried"
    assert "What was tried." in lines
    assert "First." not in text
    assert lines[lines.index("## Found") + 2 :][:3] == ["| a | b |", "|---|---|", "| 1 | 2 |"]
    assert lines[-2:] == ["- met: x", "- MISSED: y"]
