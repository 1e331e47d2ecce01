"""What each process of a data-parallel test does; a module of its own, so that a new process can import it."""

import torch
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy

from cutback.errors import UserMistake
from cutback.scores import make_score
from tests.helpers import leave_group
from tests.scores.networks import Batches, rated, traced


def rate(rank: int, folder: str, counts: list[int], names: list[str]) -> None:
    """Rate a network on batches of one's own, and write down the scores.

    Args:
        rank: the number of this process.
        folder: where the processes meet, and what they find is written.
        counts: how many of three batches the first process has, each time.
        names: the scores.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    batches = list(Batches(sizes=(2, 2, 2)))
    mine = [batches[:count] if rank == 0 else batches[count:] for count in counts]
    found = [{name: _rated(name, part) for name in names} for part in mine]
    torch.save(found, f"{folder}/rank{rank}.pt")
    distributed.barrier()  # nobody leaves while others still exchange
    leave_group()


def _rated(name: str, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor] | str:
    """Return scores, or what a score says that refuses the batches."""
    try:
        return rated(traced("projected"), make_score(name, loader=batches, loss=cross_entropy))
    except UserMistake as error:
        return str(error)
