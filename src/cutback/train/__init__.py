"""Data, tasks, the training loop and recovery: what turns a cut network back into an accurate one."""

from cutback.train.data import Data, data_sources, load_data
from cutback.train.evaluation import Accuracy, check_model, evaluate
from cutback.train.fit import fit
from cutback.train.head import replace_head
from cutback.train.launch import Launch, MissingExtra, RankFailed, launched
from cutback.train.loop import Loop, TrainingDiverged, Watch
from cutback.train.progress import Progress
from cutback.train.records import Epoch, FitResult
from cutback.train.run_folder import RunFolder
from cutback.train.settings import TrainSettings
from cutback.train.task import Task, classification, load_task

__all__ = [
    "Accuracy",
    "Data",
    "Epoch",
    "FitResult",
    "Launch",
    "Loop",
    "MissingExtra",
    "Progress",
    "RankFailed",
    "RunFolder",
    "Task",
    "TrainSettings",
    "TrainingDiverged",
    "Watch",
    "check_model",
    "classification",
    "data_sources",
    "evaluate",
    "fit",
    "launched",
    "load_data",
    "load_task",
    "replace_head",
]
