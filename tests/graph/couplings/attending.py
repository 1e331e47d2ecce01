"""Couplings through attention: queries with keys, values with the projection, in each spelling."""

from torch import nn

from tests.graph.blocks.attending import HEADS, WIDTH, Fused, Module, Separate
from tests.graph.couplings.base import planted

DIM = HEADS * WIDTH


def _mixed(net, a, b):
    return net.mixer(a.flatten(2).transpose(1, 2)) * b.mean(1).flatten(1)[..., None]


def _units(query: str, key: str, value: str, projection: str, offsets: tuple[int, int, int]) -> list[dict]:
    """The units of inner channels: ``query`` with ``key``, ``value`` with the columns of the projection."""
    q, k, v = offsets
    units = []
    for j in range(DIM):
        scores = {query: {q + j}}
        scores[key] = {*scores.get(key, set()), k + j}
        units += [scores, {value: {v + j}, projection: {j}}]
    return units


QKV = "mixer.qkv.weight:0"
FUSED = _units(QKV, QKV, QKV, "mixer.proj.weight:1", (0, DIM, 2 * DIM))
SEPARATE = _units("mixer.q.weight:0", "mixer.k.weight:0", "mixer.v.weight:0", "mixer.proj.weight:1", (0, 0, 0))
PACKED = "mixer.inner.in_proj_weight:0"
MODULE = _units(PACKED, PACKED, PACKED, "mixer.inner.out_proj.weight:1", (0, DIM, 2 * DIM))

for name, family, mixer, units, heads in (
    ("fused", "attention, fused", lambda: Fused("free"), FUSED, [(QKV, 3 * HEADS)]),
    ("separate", "attention, functional", lambda: Separate(scaled=True), SEPARATE, [("mixer.q.weight:0", HEADS)]),
    ("unscaled", "attention, functional", lambda: Separate(scaled=False), SEPARATE, [("mixer.v.weight:0", HEADS)]),
    ("module", "attention, module", lambda: Module(weights=False), MODULE, [(PACKED, 3 * HEADS)]),
    ("module, across", "attention, module", lambda: Module(weights=True, tensors=2), MODULE, [(PACKED, 3 * HEADS)]),
    ("module, parts", "attention, module", lambda: Module(weights=False, tensors=3), MODULE, [(PACKED, 3 * HEADS)]),
):
    planted(
        f"attention, {name}",
        family,
        _mixed,
        (DIM, 6, DIM),
        tokens=True,
        mixer=mixer,
        units=[*units, *({"mixer.proj.weight:0": {j}, "head": {j}} for j in range(DIM) if "module" not in name)],
        exact=False,
        balanced=heads,
    )
planted(
    "values only",
    "",
    lambda net, a, b: net.norm(a.flatten(2).transpose(1, 2)),
    (6, 6, 6),
    tokens=True,
    norm=lambda: nn.LayerNorm(6, elementwise_affine=False),
    units=[{"a": {j}, "head": {j}} for j in range(6)],
)
