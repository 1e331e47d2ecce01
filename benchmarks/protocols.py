"""Networks, data and schedules under which ``benchmarks.methods`` compares: what is trained before anything is pruned.

``digits``: ResNet-20 on the handwritten digits of scikit-learn. It is trained once a seed for 20 epochs; from those
weights each method prunes and fine-tunes in 20 epochs together. ``resnext``, ``regnet`` and so on: the same with the
networks of ``benchmarks/networks.py``, one budget and one seed. ``cifar``: the ResNet-20 of
``../shared/data/cifar10_resnet_jpeg``, trained on CIFAR-10 (JPEG), pruned and fine-tuned in 3 epochs of the first
1,000 training pictures a class; validation and test are the halves of the test pictures. ``alexnet-mnist``,
``resnet18-cifar`` and so on: networks that learn the first 5,000 training pictures of MNIST, or those of CIFAR-10, less
a fifth for validation, for 6 epochs, AlexNet without its norms for 15, and are pruned and fine-tuned in 3 more. Besides
half of their MACs three fifths go, which is what SNPFI's paper (Tang 2023) reports.
"""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import networks
from cutback.models import build
from cutback.train import fit, load_data
from cutback.train.idx import read_idx

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
WORK = ROOT / "runs" / "methods"
EACH = {"train": 1000, "test": 1000}
"""Pictures of each class of CIFAR-10 that are used, the first of each."""
OF_MNIST = {"train": 5000, "t10k": 5000}
"""Pictures of MNIST that are used, the first ones."""


@dataclass(frozen=True)
class Protocol:
    """Network, data and schedule.

    Attributes:
        title: of both.
        model: the network, as for the command line.
        build: makes it.
        data: the data, as for the command line.
        learnt: epochs of training before; ``None`` where weights are shared.
        rate: their learning rate.
        epochs: of pruning and fine-tuning together.
        options: what else the command line is told.
        methods: the methods that are compared; ``None`` for all.
        shares: MACs that go, in per cent.
        seeds: of splits, weights and training.
        note: what the page says of it.
    """

    title: str
    model: str
    build: Callable[[], nn.Module]
    data: str = "digits"
    learnt: int | None = 20
    rate: float = 0.05
    epochs: int = 20
    options: tuple[str, ...] = ("--not-seen", "--finetune-lr", "0.02")
    methods: tuple[str, ...] | None = None
    shares: tuple[int, ...] = (50,)
    seeds: tuple[int, ...] = (0,)
    note: str = ""


def _small(title: str, function: Callable[[], nn.Module]) -> Protocol:
    """Return the protocol of a network of ``benchmarks/networks.py``, on digits."""
    return Protocol(f"{title} on digits", f"benchmarks/networks.py:{function.__name__}", function)


def _pictures(
    title: str, function: Callable[[], nn.Module], methods: tuple[str, ...], learnt: int = 6, rate: float = 0.05
) -> Protocol:
    """Return the protocol of a network of ``benchmarks/networks.py`` on MNIST or CIFAR-10, as its name ends."""
    data, of = ("mnist:", "MNIST") if function.__name__.endswith("28") else ("imagefolder:", "CIFAR-10 (JPEG)")
    return Protocol(
        f"{title} on {of}",
        f"benchmarks/networks.py:{function.__name__}",
        function,
        f"{data}{WORK.relative_to(ROOT) / ('mnist' if data == 'mnist:' else 'cifar')}",
        learnt=learnt,
        rate=rate,
        epochs=3,
        options=("--not-seen", "--finetune-lr", "0.005"),
        methods=methods,
        shares=(50, 60),
    )


CUTS, TRAINS = ("l1", "snpfi"), ("gradient-pruning", "plain training")
PROTOCOLS = {
    "digits": Protocol(
        "ResNet-20 on digits",
        "cutback:resnet20",
        lambda: build("resnet20", in_channels=1),
        shares=(30, 50, 70),
        seeds=(0, 1, 2),
    ),
    "cifar": Protocol(
        "ResNet-20 on CIFAR-10 (JPEG)",
        "cutback:resnet20",
        lambda: build("resnet20"),
        f"imagefolder:{WORK.relative_to(ROOT) / 'cifar'}",
        learnt=None,
        epochs=3,
        options=("--normalise", "imagenet", "--batch-size", "128", "--finetune-lr", "0.01"),
        shares=(30, 50, 70),
        note="Three epochs are 237 steps: too few for `resrep`, which warns that rows had not fallen when they went,\n"
        "and for `subarchitecture`, which trains new weights.",
    ),
    "resnext": _small("ResNeXt-style network", networks.resnext),
    "regnet": _small("RegNet-style network", networks.regnet),
    "mobilenet-v1": _small("MobileNetV1-style network", networks.mobilenet_v1),
    "mobilenet-v2": _small("MobileNetV2-style network", networks.mobilenet_v2),
    "bottleneck": _small("Residual network of bottlenecks", networks.bottleneck),
    "alexnet": _small("AlexNet-style network", networks.alexnet),
    "alexnet-mnist": _pictures("AlexNet-style network", networks.alexnet28, (*CUTS, *TRAINS), learnt=15, rate=0.01),
    "alexnet-cifar": _pictures("AlexNet-style network", networks.alexnet32, (*CUTS, *TRAINS), learnt=15, rate=0.01),
    "mobilenet-v1-mnist": _pictures("MobileNetV1-style network", networks.mobilenet_v1_28, CUTS),
    "mobilenet-v1-cifar": _pictures("MobileNetV1-style network", networks.mobilenet_v1_32, CUTS),
    "bottleneck-mnist": _pictures("Residual network of bottlenecks", networks.bottleneck28, CUTS),
    "bottleneck-cifar": _pictures("Residual network of bottlenecks", networks.bottleneck32, CUTS),
    "resnet18-mnist": _pictures("ResNet-18", networks.resnet18_28, TRAINS),
    "resnet18-cifar": _pictures("ResNet-18", networks.resnet18_32, TRAINS),
}


def dense(key: str, seed: int) -> str:
    """Return where the weights are that a protocol begins with, trained if need be, and see to its data."""
    protocol = PROTOCOLS[key]
    if protocol.data.startswith("mnist:"):
        _unpack_mnist()
    elif protocol.data.startswith("imagefolder:"):
        _unpack_cifar()
    path = WORK / f"{key}-{seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    if protocol.learnt is None:
        shutil.copyfile(SHARED / "cifar10_resnet_jpeg" / "resnet20.safetensors", path)
    elif not path.is_file():
        torch.manual_seed(seed)
        model, data = protocol.build(), load_data(protocol.data, seed=seed)
        fit(model, data, epochs=protocol.learnt, learning_rate=protocol.rate, seed=seed)
        save_file(model.state_dict(), path)
    return str(path.relative_to(ROOT))


def _unpack_cifar() -> None:
    """Write the first pictures of each class of CIFAR-10 into a folder."""
    folder, partial = WORK / "cifar", WORK / "cifar-partial"
    if folder.is_dir():
        return
    shutil.rmtree(partial, ignore_errors=True)
    counts: dict[str, int] = {}
    with tarfile.open(SHARED / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            split, label, name = (*Path(member.name).parts[-3:],) if member.isfile() else ("", "", "")
            key = f"{split}/{label}"
            file = archive.extractfile(member) if counts.get(key, 0) < EACH.get(split, 0) else None
            if file is not None:
                counts[key] = counts.get(key, 0) + 1
                place = partial / split / label / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read())
    partial.rename(folder)


def _unpack_mnist() -> None:
    """Write the first pictures of MNIST into a folder, as idx files."""
    folder = WORK / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in OF_MNIST.items():
        for what, dimensions in (("images", 3), ("labels", 1)):
            name = f"{part}-{what}-idx{dimensions}-ubyte"
            _write_idx(folder / name, read_idx(SHARED / "MNIST" / "raw" / f"{name}.gz", dimensions=dimensions)[:count])


def _write_idx(path: Path, values: Tensor) -> None:
    """Write unsigned bytes as an idx file."""
    header = bytes((0, 0, 8, values.dim())) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + bytes(values.flatten().tolist()))
