"""A drawing of how a distribution changes during a run: one small histogram below the other, as SVG text."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

LEFT, TOP, WIDE, HIGH = 96, 64, 520, 44
"""Where the first axes begin and how long they are; in pixels like everything here."""
ROW, MOST = 58, 12
"""Distance of two histograms, and how many are shown: of more, evenly spaced ones."""


class Histogram(TypedDict):
    """Counts between edges, of which there is one more."""

    edges: Sequence[float]
    counts: Sequence[int]


def recorded(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Histogram]]:
    """Return the histograms that a method has told of in a run's log, by what of and by epoch."""
    found: dict[str, dict[str, Histogram]] = {}
    for event in events:
        for name, value in event.get("method", {}).items() if event["event"] == "epoch" else ():
            if isinstance(value, dict) and value.keys() == Histogram.__annotations__.keys():
                found.setdefault(name, {})[f"epoch {event['epoch']}"] = value
    return found


def drawn(found: Mapping[str, Histogram], title: str) -> str:
    """Return histograms as SVG, all on one scale from zero; heights are logarithmic, so that single ones show.

    Args:
        found: by what stands beside each, in order.
        title: what stands above them.
    """
    names = _spaced(list(found))
    widest = max((found[name]["edges"][-1] for name in names), default=1.0)
    highest = max((math.log1p(max(found[name]["counts"])) for name in names), default=1.0) or 1.0
    wide, high = LEFT + WIDE + 40, TOP + ROW * len(names) + 36
    size = f'width="{wide}" height="{high}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect {size} fill="white"/>',
        f'<text x="{LEFT}" y="26" font-weight="bold">{html.escape(title)}</text>',
        f'<text x="{LEFT}" y="44" fill="#555">how many lie where; heights are logarithmic</text>',
    ]
    for number, name in enumerate(names):
        bottom = TOP + ROW * number + HIGH
        parts.append(f'<text x="{LEFT - 10}" y="{bottom}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(f'<path d="M {LEFT} {bottom} h {WIDE}" stroke="#888"/>')
        edges = found[name]["edges"]
        for count, start, end in zip(found[name]["counts"], edges, edges[1:], strict=False):
            if count:
                tall = HIGH * math.log1p(count) / highest
                place = f'x="{LEFT + WIDE * start / widest:.1f}" y="{bottom - tall:.1f}"'
                measure = f'width="{max(WIDE * (end - start) / widest, 0.5):.1f}" height="{tall:.1f}"'
                parts.append(f'<rect {place} {measure} fill="#3b6ea5"><title>{count} from {start:.4g}</title></rect>')
    for fifth in range(6):
        at, bottom = LEFT + WIDE * fifth / 5, TOP + ROW * len(names) + 8
        parts.append(f'<text x="{at:.0f}" y="{bottom}" text-anchor="middle">{widest * fifth / 5:.3g}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _spaced(names: Sequence[str]) -> list[str]:
    """Return at most ``MOST`` of the names, evenly spaced."""
    if len(names) <= MOST:
        return list(names)
    return [names[round(place * (len(names) - 1) / (MOST - 1))] for place in range(MOST)]
