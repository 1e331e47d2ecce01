"""Randomness by place: what is drawn depends on a seed and on where it is drawn, not on what was drawn before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

NUMPY_SEEDS = 2**32


def derived_seed(*numbers: int) -> int:
    """Return a seed made of several numbers >= 0, such as a run's seed, an epoch and a picture's number."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_of(*numbers: int) -> torch.Generator:
    """Return a generator on the CPU with a seed made of several numbers >= 0."""
    return torch.Generator().manual_seed(derived_seed(*numbers))


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch, Python and NumPy."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002 (datasets of users draw from the global state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch's CPU, Python and NumPy for a block, and restore them behind it.

    The generators of other devices are left alone, which would have to wait for them.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (as above)
    try:
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % NUMPY_SEEDS)  # noqa: NPY002 (as above)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002 (as above)
        torch.set_rng_state(cpu)
