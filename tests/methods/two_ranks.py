"""What each process of a data-parallel test does; a module of its own, so that a new process can import it."""

from collections.abc import Mapping

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from cutback.testing import MethodCase
from cutback.testing.training import Training


def train_all(rank: int, folder: str, cases: Mapping[str, tuple[str, MethodCase]]) -> None:
    """Train with each method on data of one's own, and write down what came out.

    Args:
        rank: the number of this process.
        folder: where the processes meet, and what they find is written.
        cases: method and case of each, by name.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for key, (name, case) in cases.items():
        training = Training(name, case, wrap=DistributedDataParallel, rank=rank)
        training.run(case.steps)
        plan = training.method.plan()
        found[key] = {
            "plan": None if plan is None else plan.to_json(),
            "weights": {name: parameter.detach() for name, parameter in training.model.named_parameters()},
            "seen": case.batch(0, rank)[0],
            "finished": training.method.finished,
        }
    torch.save(found, f"{folder}/rank{rank}.pt")
    distributed.barrier()  # nobody leaves while others still exchange
    distributed.destroy_process_group()
