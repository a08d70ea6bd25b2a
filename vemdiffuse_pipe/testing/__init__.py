"""For tests of programs that use this package: doubles of sources, and the claims that implementations keep.

    ArraySource FlakySource SlowSource     small real sources         (doubles.py)
    SourceConformance                      what every source keeps    (sources.py; needs pytest)
    SinkConformance                        what every sink keeps      (sinks.py; needs pytest)
    ModelConformance                       what every model keeps     (models.py; needs pytest)

A source, sink or model of one's own is proven by a subclass that provides it as a fixture.
"""

from vemdiffuse_pipe.testing.doubles import (
    VOXEL_SIZE_NM,
    ArraySource,
    Failure,
    FlakySource,
    SlowSource,
    position_coded,
)

__all__ = ["VOXEL_SIZE_NM", "ArraySource", "Failure", "FlakySource", "SlowSource", "position_coded"]
