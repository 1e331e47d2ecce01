"""Histograms of a run drawn as SVG."""

import re
from xml.etree import ElementTree as ET

from cutback.cli.histograms import HIGH, LEFT, MOST, WIDE, drawn, recorded


def bars(text: str) -> list[tuple[float, float, float, str]]:
    """Place, width and height of each bar, and what is told of it."""
    ET.fromstring(text)  # noqa: S314 (our own text: is it well-formed?)
    found = re.findall(r'<rect x="(.*?)" y=".*?" width="(.*?)" height="(.*?)".*?><title>(.*?)</title>', text)
    return [(float(x), float(width), float(height), told) for x, width, height, told in found]


def test_bars_stand_where_the_values_lie_on_one_scale() -> None:
    found = {
        "epoch 1": {"edges": [0.0, 0.5, 1.0], "counts": [0, 7]},
        "epoch 2": {"edges": [0.0, 0.25, 0.5], "counts": [63, 1]},
    }
    (x, width, height, told), *others = bars(drawn(found, "scales <of> norms"))
    assert (x, width, told) == (LEFT + WIDE / 2, WIDE / 2, "7 from 0.5")
    assert round(height, 1) == HIGH / 2, "log 8 is half of log 64"
    assert [bar[:2] for bar in others] == [(LEFT, WIDE / 4), (LEFT + WIDE / 4, WIDE / 4)]
    assert others[0][2] == HIGH
    assert "scales &lt;of&gt; norms" in drawn(found, "scales <of> norms")


def test_of_many_the_first_the_last_and_some_between_are_shown() -> None:
    found = {f"epoch {n}": {"edges": [0.0, 1.0], "counts": [n]} for n in range(1, 101)}
    told = [bar[3].split()[0] for bar in bars(drawn(found, "many"))]
    assert len(told) == MOST
    assert (told[0], told[-1]) == ("1", "100")


def test_nothing_recorded_is_an_empty_drawing() -> None:
    assert not bars(drawn({}, "none"))


def test_histograms_are_found_among_what_a_method_has_told() -> None:
    one, two = ({"edges": [0.0, 1.0], "counts": [n]} for n in (3, 4))
    told = [{"scales": one, "near": 0.5}, {"scales": two, "other": {"edges": []}}]
    events = [{"event": "epoch", "epoch": n, "method": method} for n, method in enumerate(told, 1)]
    events += [{"event": "epoch", "epoch": 3}, {"event": "cut"}]
    assert recorded(events) == {"scales": {"epoch 1": one, "epoch 2": two}}
