"""What each process of a data-parallel test does; a module of its own, so that a new process can import it."""

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

import cutback
from cutback.errors import DifferentCuts
from tests.helpers import image, leave_group, residual, train_step


def train_and_cut(rank: int, folder: str) -> None:
    """Train on data of one's own, cut, train on, and write down what there is."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = residual()
    wrapped = DistributedDataParallel(model)
    optimizer = SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    for step in range(2):
        train_step(wrapped, optimizer, 10 * step + rank)
    graph = cutback.trace(wrapped, image(rank))
    refused = False
    try:
        cutback.apply_(graph, cutback.plan(graph, keep={"inner": 4 + rank}))
    except DifferentCuts:
        refused = model.inner.out_channels == 10
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, optimizers=optimizer)
    wrapped = cutback.rewrap(wrapped)
    train_step(wrapped, optimizer, 30 + rank)
    wrapped.eval()
    with torch.no_grad():
        wrapped(image())  # brings the running statistics of rank 0 to all
    alone = torch.autograd.grad(model(image(40 + rank)).square().mean(), list(model.parameters()))
    optimizer.zero_grad()
    wrapped(image(40 + rank)).square().mean().backward()
    found = {
        "refused": refused,
        "plan": plan.to_json(),
        "model": model.state_dict(),
        "alone": list(alone),
        "exchanged": [parameter.grad for parameter in model.parameters()],
    }
    torch.save(found, f"{folder}/rank{rank}.pt")
    leave_group()
