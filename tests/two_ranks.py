"""Work in two processes, as data-parallel training does it."""

from collections.abc import Callable

from torch.multiprocessing import start_processes

from tests.resuming.processes import forking


def in_two_ranks(work: Callable[..., None], *arguments: object) -> None:
    """Call ``work(rank, *arguments)`` in two processes at once; raise what either raises.

    Both are forked from a server that has imported all there is to import: the imports take far longer than the work.

    Args:
        work: what each does, a function of a module.
        *arguments: what it is given besides its number.
    """
    forking()
    context = start_processes(work, arguments, nprocs=2, join=False, start_method="forkserver")
    while not context.join(timeout=120):
        pass
