"""A drawing of the coupling: layers as boxes in the order they run, coloured by group, as SVG text."""

import colorsys
import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cutback.graph.graph import Graph, layer_of

ROW, BOX, TOP = 30, 22, 64
"""Distance of two boxes, height of one, and room for the title; in pixels like everything here."""
LETTER = 7.3
"""Width of a letter of the font."""
MARGIN, GAP, FURTHEST = 16, 18, 180
"""Room at the edges, between columns, and the most that a line bends out to the left."""
GREY = "#d9d9d9"


@dataclass(frozen=True)
class Layer:
    """A layer that makes channels.

    Attributes:
        name: its path.
        group: number of the group that most of its prunable channels belong to; -1 where all stay.
        prunable: how many of its channels may go.
        channels: how many it has.
    """

    name: str
    group: int
    prunable: int
    channels: int


def layers_and_edges(graph: Graph) -> tuple[list[Layer], list[tuple[int, int]]]:
    """Return the layers in the order they first run in eval mode, and which ones consume what which others made."""
    capture = graph.captures[0]
    makers = {}
    for slot, units in graph.slots.items():
        if slot.role in ("filter", "depthwise"):
            makers.setdefault(slot.state, units.group)
    states = {node: name for node, name in zip(capture.nodes, capture.states, strict=False) if name in makers}
    numbers: dict[str, int] = {}
    layers: list[Layer] = []
    edges: dict[tuple[int, int], None] = {}
    sources: dict[object, frozenset[int]] = {}
    for node in capture.nodes:
        inputs = [source for source in node.all_input_nodes if source not in states]
        made = frozenset[int]().union(*(sources.get(source, frozenset()) for source in inputs))
        weights = [states[source] for source in node.all_input_nodes if source in states]
        if weights and node.op == "call_function":
            name = layer_of(weights[0]) or weights[0]
            if name not in numbers:
                numbers[name] = len(layers)
                layers.append(_layer(name, makers[weights[0]]))
            number = numbers[name]
            edges |= {(source, number): None for source in sorted(made) if source != number}
            made = frozenset({number})
        sources[node] = made
    return layers, list(edges)


def drawn(graph: Graph, title: str) -> str:
    """Return the drawing as SVG.

    Args:
        graph: the traced model.
        title: what stands above it.
    """
    layers, edges = layers_and_edges(graph)
    names = [group.name for group in graph.groups]
    notes = [_note(layer, names) for layer in layers]
    left = MARGIN + max([GAP, *(_bend(first, second) for first, second in edges)])
    wide = _width([layer.name for layer in layers]) + 2 * GAP
    subtitle = f"{len(layers)} layers that make channels, {len(names)} groups; grey: all channels stay"
    whole = max(left + wide + GAP + _width(notes), MARGIN + _width([title, subtitle])) + MARGIN
    high = TOP + ROW * len(layers) + MARGIN
    size = f'width="{whole:.0f}" height="{high}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        f"<title>{_escaped(title)}</title>",
        f'<rect {size} fill="white"/>',
        f'<text x="{MARGIN}" y="26" font-weight="bold">{_escaped(title)}</text>',
        f'<text x="{MARGIN}" y="44" fill="#555">{_escaped(subtitle)}</text>',
    ]
    parts += [_edge(first, second, left, wide) for first, second in edges]
    parts += [_box(number, layer, left, wide, notes[number]) for number, layer in enumerate(layers)]
    return "\n".join([*parts, "</svg>", ""])


def colour(group: int) -> str:
    """Return the colour of a group; neighbours in number are far apart in hue."""
    if group < 0:
        return GREY
    red, green, blue = colorsys.hls_to_rgb((group * 0.381966) % 1, 0.74 if group % 2 else 0.82, 0.65)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _layer(name: str, group: np.ndarray) -> Layer:
    """Sum up a layer, given the group of each of its channels."""
    prunable = group[group >= 0]
    most = int(np.bincount(prunable).argmax()) if len(prunable) else -1
    return Layer(name, most, len(prunable), len(group))


def _note(layer: Layer, names: Sequence[str]) -> str:
    """Say what becomes of a layer's channels."""
    if layer.group < 0:
        return f"{layer.channels} channels, all stay"
    part = "" if layer.prunable == layer.channels else f", {layer.channels - layer.prunable} stay"
    return f"{layer.channels} channels{part}, group {names[layer.group]}"


def _box(number: int, layer: Layer, left: float, wide: float, note: str) -> str:
    top = TOP + ROW * number
    line = top + BOX / 2 + 4
    return (
        f'<rect x="{left:.0f}" y="{top}" width="{wide:.0f}" height="{BOX}" rx="4" fill="{colour(layer.group)}" '
        f'stroke="#444"/><text x="{left + GAP:.0f}" y="{line:.0f}">{_escaped(layer.name)}</text>'
        f'<text x="{left + wide + GAP:.0f}" y="{line:.0f}" fill="#555">{_escaped(note)}</text>'
    )


def _edge(first: int, second: int, left: float, wide: float) -> str:
    """Draw a line from a producer down to its consumer: straight between neighbours, else bent out to the left."""
    start, end = TOP + ROW * first, TOP + ROW * second
    if second == first + 1:
        middle = left + min(wide, 2 * GAP) / 2
        return f'<path d="M{middle:.0f} {start + BOX} V{end}" stroke="#444" fill="none"/>'
    out, dashes = left - _bend(first, second), ' stroke-dasharray="4 3"' if second < first else ""
    start, end = start + BOX * 0.65, end + BOX * 0.35
    return (
        f'<path d="M{left:.0f} {start:.0f} C{out:.0f} {start:.0f} {out:.0f} {end:.0f} {left:.0f} {end:.0f}" '
        f'stroke="#888" fill="none"{dashes}/>'
    )


def _bend(first: int, second: int) -> float:
    """Return how far a line bends out: further where it spans more rows."""
    return 0 if second == first + 1 else min(GAP + 6 * abs(second - first), FURTHEST)


def _width(texts: Sequence[str]) -> float:
    return LETTER * max(map(len, texts), default=0)


def _escaped(text: str) -> str:
    """Escape text for XML; characters that XML does not know are replaced."""
    return html.escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))
