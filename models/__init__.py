"""Networks, their data, training and files of events.

The front door: ``__all__`` is what is public. A module is imported when one of its names is first used.
"""

from typing import TYPE_CHECKING

from .front import open_front as _open_front

if TYPE_CHECKING:
    from .data import EventDataset, digits, frames_of, gestures, k_folds, nmnist, open_dataset
    from .digits_cnn import digits_cnn, strided_digits_cnn
    from .dvs import DvsModel, SaccadePath, saccade_recording, simulate_dvs
    from .errors import ModelsError
    from .events import Events, concatenate
    from .files import read_events, write_events
    from .gesture_cnn import GESTURES, gesture_cnn
    from .train import TrainResult, TrainSettings, accuracy, train
    from .weights import load_weights, save_weights
    from .zoo import ZOO, load_network

__all__ = [
    "GESTURES",
    "ZOO",
    "DvsModel",
    "EventDataset",
    "Events",
    "ModelsError",
    "SaccadePath",
    "TrainResult",
    "TrainSettings",
    "accuracy",
    "concatenate",
    "digits",
    "digits_cnn",
    "frames_of",
    "gesture_cnn",
    "gestures",
    "k_folds",
    "load_network",
    "load_weights",
    "nmnist",
    "open_dataset",
    "read_events",
    "saccade_recording",
    "save_weights",
    "simulate_dvs",
    "strided_digits_cnn",
    "train",
    "write_events",
]

_open_front(__name__)
