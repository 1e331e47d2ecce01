"""A drawing of scores over the oracle, a panel a score, as SVG text; both axes are logarithmic."""

import html
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from cutback.cli.curves import colour
from cutback.trials.correlation import Agreement, Correlation

SIDE, GAP, TOP, COLUMNS = 260, 56, 64, 3
"""Side of a panel, room around it, room for the title, and panels in a row; in pixels like everything here."""
ROW, LETTER = 18, 7.3


def scattered(found: Correlation, title: str) -> str:
    """Return scores over the oracle as SVG: a point a unit, the colour is its group's.

    Zeros lie on the lower edge of a panel. Sizes are drawn where a score has signs.

    Args:
        found: what is drawn.
        title: what stands above it.
    """
    columns, rows = min(COLUMNS, len(found.scores)), -(-len(found.scores) // COLUMNS)
    legend = GAP + columns * (SIDE + GAP)
    wide = max(legend + 24 + LETTER * max(map(len, found.oracle)), GAP + LETTER * len(title)) + GAP
    high = TOP + max(rows * (SIDE + GAP) + ROW, ROW * (len(found.oracle) + 1))
    size = f'width="{wide:.0f}" height="{high}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect {size} fill="white"/>',
        f'<text x="{GAP}" y="26" font-weight="bold">{html.escape(title)}</text>',
    ]
    truth = _shares(found.oracle)
    for number, (name, values) in enumerate(found.scores.items()):
        left, top = GAP + number % COLUMNS * (SIDE + GAP), TOP + number // COLUMNS * (SIDE + GAP)
        parts += [f'<g transform="translate({left} {top})">', *_frame(name, found.overall[name])]
        parts += [*_points(truth, _shares(values)), "</g>"]
    for number, group in enumerate(found.oracle):
        place = TOP + ROW * number
        parts.append(f'<circle cx="{legend}" cy="{place}" r="4" fill="{colour(number)}"/>')
        parts.append(f'<text x="{legend + 12}" y="{place + 4}">{html.escape(group)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _frame(name: str, agreement: Agreement) -> list[str]:
    """Return the frame of a panel and what is written around it."""
    told = "-" if agreement.spearman is None else f"{agreement.spearman:.3f}"
    return [
        f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>',
        f'<text y="-6">{html.escape(name)}, Spearman {told}</text>',
        f'<text x="{SIDE}" y="{SIDE + 16}" text-anchor="end" fill="#555">oracle (log)</text>',
        '<text transform="translate(-6 0) rotate(-90)" text-anchor="end" fill="#555">score (log)</text>',
    ]


def _points(across: Mapping[str, NDArray[np.float64]], up: Mapping[str, NDArray[np.float64]]) -> Iterable[str]:
    """Return the points of a panel."""
    return [
        f'<circle cx="{SIDE * x:.1f}" cy="{SIDE * (1 - y):.1f}" r="2.5" fill="{colour(number)}" fill-opacity="0.7"/>'
        for number, group in enumerate(across)
        for x, y in zip(across[group].tolist(), up[group].tolist(), strict=True)
    ]


def _shares(values: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Return where along an axis each value lies: 0 the smallest size beside zero (and zero), 1 the largest."""
    sizes = {group: np.abs(own) for group, own in values.items()}
    positive = np.concatenate([own[own > 0] for own in sizes.values()])
    if not len(positive):
        return {group: np.zeros_like(own) for group, own in sizes.items()}
    low, high = np.log(positive.min()), np.log(positive.max())
    spread = (high - low) or 1.0
    return {group: (np.log(np.maximum(own, positive.min())) - low) / spread for group, own in sizes.items()}
