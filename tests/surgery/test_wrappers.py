"""Wrapped models are cut inside their wrapper, and wrapped anew with the same settings."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel

import cutback
from cutback.errors import StaleWrapper, UserMistake
from tests.helpers import image, leave_group, residual, train_step
from tests.surgery.two_ranks import train_and_cut
from tests.two_ranks import in_two_ranks


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    yield
    leave_group()


@pytest.fixture
def compiled_calls():
    """Graphs compiled by the backend ``counted``: how many nodes each has."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


def counting(calls):
    def backend(graph, _inputs):
        calls.append(len(graph.graph.nodes))
        return graph.forward

    return backend


def wrapped_in(kind, model):
    def compiled(inner):
        return torch.compile(inner, backend="eager")

    return {
        "compile": lambda: compiled(model),
        "ddp": lambda: DistributedDataParallel(model),
        "data parallel": lambda: DataParallel(model),
        "ddp of compile": lambda: DistributedDataParallel(compiled(model)),
        "compile of ddp": lambda: compiled(DistributedDataParallel(model)),
    }[kind]()


@pytest.mark.parametrize("kind", ["compile", "ddp", "data parallel", "ddp of compile", "compile of ddp"])
def test_a_wrapped_model_is_cut_inside_and_wrapped_anew(kind, alone, tmp_path):
    model, twin = residual(), residual()
    old = wrapped_in(kind, model)
    optimizer, other = SGD(old.parameters(), lr=0.1, momentum=0.9), SGD(twin.parameters(), lr=0.1, momentum=0.9)
    parameters = list(model.parameters())
    for network, own in ((old, optimizer), (twin, other)):
        train_step(network, own)
    assert cutback.measure.macs(old, image()) == cutback.measure.macs(twin, image())
    graph = cutback.trace(old, image())
    assert graph.model is model
    plan = cutback.plan(graph, budget="channels=50%")
    assert cutback.apply_(graph, plan, optimizers=optimizer) is not None
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    twin_graph = cutback.trace(twin, image())
    cutback.apply_(twin_graph, cutback.plan(twin_graph, budget="channels=50%"), optimizers=other)
    new = cutback.rewrap(old)
    assert type(new) is type(old)
    assert new is not old
    for seed in range(2):  # training goes on exactly as that of a model that was never wrapped
        train_step(new, optimizer, seed)
        train_step(twin, other, seed)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    assert torch.equal(new.eval()(image()), twin.eval()(image()))
    assert cutback.measure.params(new) == cutback.measure.params(twin) < cutback.measure.params(residual())
    cutback.save(new, plan, tmp_path / "small")
    again = cutback.load(tmp_path / "small", build=residual).eval()
    assert torch.equal(again(image()), twin(image()))


@pytest.mark.parametrize("kind", ["compile", "ddp"])
def test_a_pruned_copy_of_a_wrapped_model_comes_without_wrapper(kind, alone):
    model = residual()
    pruned = cutback.prune(wrapped_in(kind, model), image(), channels=0.5)
    assert type(pruned) is type(model)
    assert (pruned.inner.out_channels, model.inner.out_channels) == (5, 10)


@pytest.mark.parametrize("kind", ["ddp", "ddp of compile", "compile of ddp"])
def test_an_old_data_parallel_wrapper_refuses_to_run_after_a_cut(kind, alone):
    model = residual()
    old = wrapped_in(kind, model)
    old(image())
    graph = cutback.trace(old, image())
    plan = cutback.plan(graph, budget="channels=50%")
    old(image())  # nothing has been cut yet
    cutback.apply_(graph, plan)
    with pytest.raises(StaleWrapper, match=r"cutback\.rewrap"):
        old(image())
    assert torch.isfinite(cutback.rewrap(old)(image())).all()


def test_a_wrapper_stays_of_use_where_a_cut_fails(alone):
    old = DistributedDataParallel(residual())
    graph = cutback.trace(old, image())
    plan = cutback.plan(graph, budget="channels=50%")
    with pytest.raises(cutback.CutbackError):
        cutback.apply_(graph, plan, copies=nn.Sequential(nn.Conv2d(3, 8, 3)))
    assert torch.isfinite(old(image())).all()


@pytest.mark.filterwarnings("ignore:`broadcast_buffers`", "ignore:You passed find_unused")
def test_the_settings_of_data_parallel_training_stay(alone):
    group = distributed.new_group([0])
    old = DistributedDataParallel(
        residual(),
        process_group=group,
        bucket_cap_mb=3,
        find_unused_parameters=True,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,
        static_graph=True,
    )
    old.register_comm_hook(None, fp16_compress_hook)
    old.eval()
    graph = cutback.trace(old, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    new = cutback.rewrap(old)
    assert new.process_group is group
    assert new.bucket_bytes_cap == 3 * 1024 * 1024
    assert (new.find_unused_parameters, new.gradient_as_bucket_view, new.static_graph) == (True, True, True)
    assert (new.broadcast_buffers, new.training, new.module) == (False, False, graph.model)
    assert new._comm_hooks == [(fp16_compress_hook, None)]
    default = cutback.rewrap(DistributedDataParallel(residual()))
    assert default.bucket_bytes_cap_default
    switches = (default.find_unused_parameters, default.gradient_as_bucket_view, default.static_graph)
    assert (*switches, default.broadcast_buffers) == (False, False, False, True)


def test_the_settings_of_a_compiled_model_stay(compiled_calls):
    model = residual()
    old = torch.compile(model, backend=counting(compiled_calls), fullgraph=True, dynamic=False)
    old(image())
    assert len(compiled_calls) == 1
    graph = cutback.trace(old, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    new = cutback.rewrap(old)
    assert torch.equal(new(image()), model(image()))
    assert len(compiled_calls) == 2  # by the same backend
    new(image(shape=(3, 3, 8, 8)))
    assert len(compiled_calls) == 3  # dynamic=False: another batch size is another graph
    model.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):  # fullgraph=True
        new(image())


@pytest.mark.parametrize("training", [True, False])
def test_a_compiled_model_never_runs_what_was_compiled_before_the_cut(training, compiled_calls):
    model = residual().train(training)
    compiled = torch.compile(model, backend=counting(compiled_calls))
    compiled(image())
    graph = cutback.trace(compiled, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    model.eval()
    expected = model(image())
    assert torch.equal(compiled(image()), expected)
    assert len(compiled_calls) == 2
    with torch.no_grad():
        model.head.bias.add_(1)
    torch.testing.assert_close(compiled(image()), expected + 1)


def test_a_model_compiled_in_place(compiled_calls):
    model = residual()
    model.compile(backend=counting(compiled_calls))
    model.eval()(image())
    graph = cutback.trace(model, image())
    cutback.apply_(graph, cutback.plan(graph, budget="channels=50%"))
    assert torch.equal(model(image()), model.forward(image()))
    assert len(compiled_calls) == 2


@pytest.mark.parametrize("kind", ["compile", "ddp"])
def test_an_average_of_a_wrapped_model_is_cut_along(kind, alone):
    model = residual()
    old = wrapped_in(kind, model)
    average, plain = AveragedModel(old), AveragedModel(model)
    graph = cutback.trace(old, image())
    plan = cutback.plan(graph, budget="channels=50%")
    cutback.apply_(graph, plan, copies=[average, plain])
    cut, expected = average.module.state_dict(), plain.module.state_dict()
    assert len(cut) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(cut.values(), expected.values(), strict=True))
    assert expected["inner.weight"].shape == (5, 4, 3, 3)
    average.update_parameters(cutback.rewrap(old))


def test_a_model_without_wrapper_is_returned_as_it_is():
    model = residual()
    assert cutback.rewrap(model) is model


def test_wrappers_of_other_kinds_are_not_guessed_at(alone):
    class Own(DistributedDataParallel):
        pass

    with pytest.raises(UserMistake, match="Own is a wrapper of its own kind"):
        cutback.rewrap(Own(residual()))


@pytest.mark.slow
def test_two_ranks_make_the_same_cut_or_none_and_train_on_alike(tmp_path):
    in_two_ranks(train_and_cut, str(tmp_path))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert first["refused"]
    assert second["refused"]
    assert first["plan"] == second["plan"]
    assert first["model"]["inner.weight"].shape == (5, 4, 3, 3)
    assert all(torch.equal(tensor, second["model"][name]) for name, tensor in first["model"].items())
    for mine, other, exchanged in zip(first["alone"], second["alone"], first["exchanged"], strict=True):
        assert not torch.equal(mine, other)  # each rank has data of its own, and the wrapper exchanges the mean
        torch.testing.assert_close(exchanged, (mine + other) / 2)


def test_a_sharded_model_is_refused(alone):
    mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
    model = fully_shard(residual(), mesh=mesh)
    with pytest.raises(UserMistake, match=r"sharded over several processes; cut it before it is sharded"):
        cutback.trace(model, image())
