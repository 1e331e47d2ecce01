"""Data sources and the training loop: what turns a cut network back into an accurate one."""

from cutback.train.data import Data, data_sources, load_data
from cutback.train.evaluation import Accuracy, check_model, evaluate
from cutback.train.head import replace_head
from cutback.train.loop import TrainingDiverged, fit
from cutback.train.progress import Progress
from cutback.train.records import Epoch, FitResult

__all__ = [
    "Accuracy",
    "Data",
    "Epoch",
    "FitResult",
    "Progress",
    "TrainingDiverged",
    "check_model",
    "data_sources",
    "evaluate",
    "fit",
    "load_data",
    "replace_head",
]
