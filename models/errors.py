"""Errors of ``spikeport.models``.

    ModelsError
    ├── EventsError       (ValueError)  arrays that are no event recording
    ├── EventFileError    (ValueError)  a file that is no event file, or a damaged one
    ├── TensorFileError   (ValueError)  a file that is no artifact of ours of the wanted kind, or a damaged one
    ├── WeightsFileError  (ValueError)  a file that holds no weights, the wrong ones, or code
    ├── NetworkFileError  (ValueError)  a file that holds no network that can be read, or a damaged one
    ├── DataError         (OSError)     a data set that is not there
    ├── TrainingError     (ValueError)  settings, data or a network that cannot be trained with, or a loss that diverged
    ├── ModelNameError    (ValueError)  a name that the zoo does not know
    ├── TargetError       (ValueError)  a place that nothing can or should be written to
    ├── InferenceError    (ValueError)  a predictor, data or settings that do not go together, or an unknown name
    ├── ShardError        (ValueError)  finished shards that are damaged, or of another evaluation
    ├── StreamError       (ValueError)  a stream of events that is damaged, or a source that does not exist
    └── RankError         (OSError)     a process of an evaluation on several that is lost

Each class carries ``exit_code``, which is what the command line returns for it.
"""


class ModelsError(Exception):
    """Base class of everything that ``spikeport.models`` raises on purpose."""

    exit_code = 2


class EventsError(ModelsError, ValueError):
    """Arrays that do not form an event recording: wrong lengths, order, range or type."""


class EventFileError(ModelsError, ValueError):
    """A file that cannot be read as an event recording."""

    exit_code = 6


class TensorFileError(ModelsError, ValueError):
    """A file that is no artifact of the wanted kind and version, or that is damaged."""

    exit_code = 6


class WeightsFileError(ModelsError, ValueError):
    """A file that does not hold the weights of the network it is loaded into."""

    exit_code = 6


class NetworkFileError(ModelsError, ValueError):
    """A file that holds no network that can be read without running code, or a damaged one."""

    exit_code = 6


class DataError(ModelsError, OSError):
    """A data set, or the package that carries it, that is not there."""


class TrainingError(ModelsError, ValueError):
    """Settings, data or a network that cannot be trained with, or a loss that diverged."""


class ModelNameError(ModelsError, ValueError):
    """A network name that the zoo does not know."""


class TargetError(ModelsError, ValueError):
    """A file, folder or stream that a command was to write and cannot, or must not."""


class InferenceError(ModelsError, ValueError):
    """A predictor, data and settings that do not go together, or a name of a metric or readout that is unknown."""


class ShardError(ModelsError, ValueError):
    """Finished shards of an evaluation that are damaged, or that belong to another one."""

    exit_code = 6


class StreamError(ModelsError, ValueError):
    """A stream of events that is damaged, or a source or setting of a stream that makes no sense."""

    exit_code = 6


class RankError(ModelsError, OSError):
    """A process of an evaluation on several processes that is lost or does not answer."""

    exit_code = 7
