"""Networks, their data, training and files of events.

The front door: ``__all__`` is what is public. A module is imported when one of its names is first used.
"""

from typing import TYPE_CHECKING

from .front import open_front as _open_front

if TYPE_CHECKING:
    from .batches import InferenceSettings
    from .callbacks import Callback, Checkpoint, EarlyExit, SpikeRecorder, StateRecorder
    from .cnn import CnnPredictor
    from .data import EventDataset, digits, frames_of, gestures, k_folds, nmnist, open_dataset
    from .digits_cnn import digits_cnn, strided_digits_cnn
    from .dvs import DvsModel, SaccadePath, saccade_recording, simulate_dvs
    from .encoders import DirectCurrent, Hold, LinearLatency, LogLatency, Poisson, Rate
    from .errors import ModelsError
    from .event_ssm import EventSSM
    from .events import Events, concatenate
    from .files import iterate_events, read_events, write_chunks, write_events
    from .formats.source import ReadOptions
    from .gesture_cnn import GESTURES, gesture_cnn
    from .infer import evaluate, predict
    from .labelled import open_labelled
    from .lif_predictor import LifPredictor, load_lif
    from .lif_training import LifTrainSettings, train_lif
    from .metrics import Accuracy, ConfusionMatrix, Energy, Latency, MeanSquareError, Spikes, Synops, TopK
    from .poker import image_folder, poker
    from .predictor import Predictor, Response, Run, RunOptions
    from .readouts import Delayed, ExponentialMean, FirstSpike, Last, Leaky, Maximum, Mean, SpikeCount, Sum
    from .recurrent_lif import LifConfig, LifState, RecurrentLif
    from .results import Evaluation, Prediction
    from .samples import Batches
    from .seen import Metric, Seen
    from .serializers import Hdf5, Npz, load_arrays, load_response, load_state, save_arrays, save_response, save_state
    from .sinks import ConfidenceTrace, DecisionLog
    from .sources import open_source
    from .sparse import SparseSteps, sparse_events, sparse_raster
    from .splits import split_by_class
    from .ssm.predictor import SsmPredictor, load_ssm
    from .stream import Decision, StreamReport, StreamSettings, stream
    from .survey import Survey, survey_events
    from .symbols import symbols
    from .train import TrainResult, TrainSettings, accuracy, train
    from .weights import load_weights, save_weights
    from .wire import send_events
    from .zoo import ZOO, load_network

__all__ = [
    "GESTURES",
    "ZOO",
    "Accuracy",
    "Batches",
    "Callback",
    "Checkpoint",
    "CnnPredictor",
    "ConfidenceTrace",
    "ConfusionMatrix",
    "Decision",
    "DecisionLog",
    "Delayed",
    "DirectCurrent",
    "DvsModel",
    "EarlyExit",
    "Energy",
    "Evaluation",
    "EventDataset",
    "EventSSM",
    "Events",
    "ExponentialMean",
    "FirstSpike",
    "Hdf5",
    "Hold",
    "InferenceSettings",
    "Last",
    "Latency",
    "Leaky",
    "LifConfig",
    "LifPredictor",
    "LifState",
    "LifTrainSettings",
    "LinearLatency",
    "LogLatency",
    "Maximum",
    "Mean",
    "MeanSquareError",
    "Metric",
    "ModelsError",
    "Npz",
    "Poisson",
    "Prediction",
    "Predictor",
    "Rate",
    "ReadOptions",
    "RecurrentLif",
    "Response",
    "Run",
    "RunOptions",
    "SaccadePath",
    "Seen",
    "SparseSteps",
    "SpikeCount",
    "SpikeRecorder",
    "Spikes",
    "SsmPredictor",
    "StateRecorder",
    "StreamReport",
    "StreamSettings",
    "Sum",
    "Survey",
    "Synops",
    "TopK",
    "TrainResult",
    "TrainSettings",
    "accuracy",
    "concatenate",
    "digits",
    "digits_cnn",
    "evaluate",
    "frames_of",
    "gesture_cnn",
    "gestures",
    "image_folder",
    "iterate_events",
    "k_folds",
    "load_arrays",
    "load_lif",
    "load_network",
    "load_response",
    "load_ssm",
    "load_state",
    "load_weights",
    "nmnist",
    "open_dataset",
    "open_labelled",
    "open_source",
    "poker",
    "predict",
    "read_events",
    "saccade_recording",
    "save_arrays",
    "save_response",
    "save_state",
    "save_weights",
    "send_events",
    "simulate_dvs",
    "sparse_events",
    "sparse_raster",
    "split_by_class",
    "stream",
    "strided_digits_cnn",
    "survey_events",
    "symbols",
    "train",
    "train_lif",
    "write_chunks",
    "write_events",
]

_open_front(__name__)
