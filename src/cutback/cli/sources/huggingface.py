"""``hf:NAME``: image classifiers of transformers, built from their configuration without pretrained weights."""

import torch

from cutback.cli.models import Built, model_sources
from cutback.cli.sources._libraries import attempt
from cutback.train.data import Shape
from cutback.train.libraries import imported

EXAMPLE_SHAPE = (3, 224, 224)


@model_sources.register("hf")
def load_huggingface(argument: str, *, input_shape: Shape | None) -> Built:  # noqa: ARG001 (all sources share one signature)
    """Build a model from the configuration that the hub, or a local folder, holds under a name.

    Raises:
        UserMistake: transformers is missing, or the configuration cannot be had or built.
    """
    library = imported("transformers", install="transformers")

    def build() -> torch.nn.Module:
        return library.AutoModelForImageClassification.from_config(library.AutoConfig.from_pretrained(argument))

    model = attempt(f"hf:{argument}", build)
    imports = ("import cutback", "from transformers import AutoConfig, AutoModelForImageClassification")
    expression = f'AutoModelForImageClassification.from_config(AutoConfig.from_pretrained("{argument}"))'
    return Built(model, torch.zeros(1, *EXAMPLE_SHAPE), imports, expression)
