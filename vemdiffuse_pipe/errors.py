"""What can go wrong, as one tree.

    VemdiffuseError
      InputError               what was given cannot be used: nothing was started          exit 2
        ConfigError              an option or a line of the run file
        SourceError              a volume that cannot be opened as one
          AbsentLevelError         a level that metadata declares, and that is not there
        ModelError               a checkpoint, a card, or a model that does not fit the run
        PlanError                a plan that would not fit: memory, disk, ratio
        OutputError              an output that cannot be written here, or belongs to another run
      DataError                voxels that cannot be had; the block is marked failed        exit 1
        MissingDataError         the chunk is not there
        CorruptDataError         the chunk is there and cannot be decoded
        AccessError              the store does not let us look, so that nobody knows
      StorageFullError         no room left; the run stops, what is done stays done         exit 1
      TrainingError            training came to nothing; what was saved before stays            exit 1
      TransientError           worth trying again: the only kind that is retried
      MisalignedWriteError     a bug of ours, caught before it tears a shard

A message says what was found, what was needed, and what to do.
"""


class VemdiffuseError(Exception):
    """Any failure that this package reports in a sentence."""


class InputError(VemdiffuseError):
    """What was given cannot be used; nothing was started."""


class ConfigError(InputError):
    """An option or a line of the run file is wrong."""


class SourceError(InputError):
    """A volume cannot be opened as one."""


class AbsentLevelError(SourceError):
    """A level that metadata declares is not there."""


class ModelError(InputError):
    """A checkpoint or a model cannot be used for this run."""


class PlanError(InputError):
    """The plan would not fit: memory, disk, ratio or region."""


class OutputError(InputError):
    """The output cannot be written here, or belongs to another run."""


class DataError(VemdiffuseError):
    """Voxels cannot be had."""


class MissingDataError(DataError):
    """A chunk is absent, which is not the same as black."""


class CorruptDataError(DataError):
    """A chunk is present and cannot be decoded."""


class AccessError(DataError):
    """The store does not let us look: there may be something, or nothing."""


class StorageFullError(VemdiffuseError):
    """The output has no room left."""


class TrainingError(VemdiffuseError):
    """Training came to nothing: a loss that is no number."""


class TransientError(VemdiffuseError):
    """Worth trying again."""


class MisalignedWriteError(VemdiffuseError):
    """A write that does not cover whole shards."""
