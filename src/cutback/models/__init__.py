"""Small classic networks that come along, one a file, named ``cutback:NAME`` on the command line.

They are ordinary ``nn.Module`` classes in plain Python, the ones that pruning papers report on.
"""

from cutback.models.alexnet import AlexNet
from cutback.models.catalogue import ModelEntry, build, models
from cutback.models.densenet import CifarDenseNet
from cutback.models.lenet import LeNet5
from cutback.models.mlp import MLP
from cutback.models.mobilenet import MobileNetV1
from cutback.models.preactivation import PreActivationResNet
from cutback.models.resnet import CifarResNet
from cutback.models.resnet_imagenet import ImageNetResNet
from cutback.models.vgg import VGG16, VGG19

__all__ = [
    "MLP",
    "VGG16",
    "VGG19",
    "AlexNet",
    "CifarDenseNet",
    "CifarResNet",
    "ImageNetResNet",
    "LeNet5",
    "MobileNetV1",
    "ModelEntry",
    "PreActivationResNet",
    "build",
    "models",
]
