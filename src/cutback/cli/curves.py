"""A drawing of sensitivity curves: accuracy over the share of a group that was removed, as SVG text."""

import colorsys
import html
import math

from cutback.planning.sensitivity import Sensitivity

LEFT, TOP, WIDE, HIGH = 64, 64, 520, 340
"""Where the axes begin and how long they are; in pixels like everything here."""
ROW, LETTER, GAP = 18, 7.3, 28
"""Height of a line of the legend, width of a letter, and room between the drawing and the legend."""
DASHES = ("", "6 3", "2 3")


def drawn(found: Sensitivity, title: str) -> str:
    """Return the curves of a scan as SVG; each starts at the dense accuracy.

    Args:
        found: the scan.
        title: what stands above them.
    """
    lowest = min([found.dense, *(accuracy for curve in found.curves.values() for accuracy in curve.values())])
    bottom = math.floor(lowest * 10) / 10 if lowest < 1 else 0.9
    legend = LEFT + WIDE + GAP
    whole = max(legend + 40 + LETTER * max(map(len, found.curves), default=0), LEFT + LETTER * len(title)) + LEFT
    high = TOP + max(HIGH + 48, ROW * (len(found.curves) + 1))

    def x(share: float) -> float:
        return LEFT + WIDE * share

    def y(accuracy: float) -> float:
        return TOP + HIGH * (1 - (accuracy - bottom) / (1 - bottom))

    size = f'width="{whole:.0f}" height="{high}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect {size} fill="white"/>',
        f'<text x="{LEFT}" y="26" font-weight="bold">{html.escape(title)}</text>',
        f'<text x="{LEFT}" y="44" fill="#555">accuracy by the share of one group that was removed, untrained</text>',
    ]
    for tenth in range(round(bottom * 10), 11):
        at = y(tenth / 10)
        parts.append(f'<path d="M {LEFT} {at:.1f} h {WIDE}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tenth / 10:.0%}</text>')
    for tenth in range(0, 11, 2):
        at = x(tenth / 10)
        parts.append(f'<text x="{at:.1f}" y="{TOP + HIGH + 20}" text-anchor="middle">{tenth / 10:.0%}</text>')
    for number, (group, curve) in enumerate(found.curves.items()):
        points = " ".join(
            f"{x(share):.1f},{y(accuracy):.1f}" for share, accuracy in [(0.0, found.dense), *curve.items()]
        )
        style = f'fill="none" stroke="{colour(number)}" stroke-width="1.6" stroke-dasharray="{DASHES[number % 3]}"'
        place = TOP + ROW * number
        parts.append(f'<polyline points="{points}" {style}><title>{html.escape(group)}</title></polyline>')
        parts.append(f'<path d="M {legend} {place} h 28" {style}/>')
        parts.append(f'<text x="{legend + 36}" y="{place + 4}">{html.escape(group)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def colour(number: int) -> str:
    """Return the colour of a curve; neighbours are far apart in hue."""
    red, green, blue = colorsys.hls_to_rgb((number * 0.381966) % 1, 0.42, 0.7)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
