"""``torchvision:NAME``: torchvision's models, without their pretrained weights."""

import torch

from cutback.cli.models import Built, model_sources
from cutback.cli.sources._libraries import attempt
from cutback.errors import UnknownName
from cutback.registry import near_misses
from cutback.train.data import Shape
from cutback.train.libraries import imported

EXAMPLE_SHAPE = (3, 224, 224)


@model_sources.register("torchvision")
def load_torchvision(argument: str, *, input_shape: Shape | None) -> Built:  # noqa: ARG001 (all sources share one signature)
    """Build a model with ``torchvision.models.get_model``.

    Raises:
        UserMistake: torchvision is missing or does not load, or refuses to build the model.
        UnknownName: it has no such model.
    """
    library = imported("torchvision.models", install="torchvision")
    known = list(library.list_models())
    if argument not in known:
        raise UnknownName(f"torchvision has no model {argument!r}; {near_misses(argument, known)}")
    # Neither the model's own weights nor those of a backbone inside it are fetched.
    options = {"weights": None}
    if any(part in argument for part in ("rcnn", "retinanet", "fcos", "ssd", "deeplab", "fcn", "lraspp")):
        options["weights_backbone"] = None
    model = attempt(f"torchvision:{argument}", lambda: library.get_model(argument, **options))
    written = "".join(f", {name}=None" for name in options)
    expression = f'torchvision.models.get_model("{argument}"{written})'
    return Built(model, torch.zeros(1, *EXAMPLE_SHAPE), ("import cutback", "import torchvision"), expression)
