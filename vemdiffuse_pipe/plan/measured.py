"""What only the voxels of a source say, measured once, before a run."""

from __future__ import annotations

from dataclasses import dataclass

Contrast = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of a source: the same for all blocks, stored with the output, never in the run file."""

    contrast: Contrast | None = None
    """Mean and standard deviation of the grey levels; None where the run file states them or no model
    asks.
    """
    rejected_sections: tuple[int, ...] = ()
    """Sections that hold no usable data, ascending, beside those that the run file rejects."""
