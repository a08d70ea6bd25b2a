"""What an absent chunk stands for, as metadata states it: a number that the array's type has, or not."""

from __future__ import annotations

import math
import re
import reprlib
import struct
from dataclasses import dataclass

import numpy as np

from vemdiffuse_pipe.errors import MissingDataError

_NAMED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_BITS = {"float16": "e", "float32": "f", "float64": "d"}


@dataclass(frozen=True, slots=True)
class Fill:
    """`number`: 0 where `unusable` says which value the metadata has that the type cannot hold."""

    number: int | float = 0
    unusable: str = ""

    @property
    def in_json(self) -> bool | int | float | str:
        """As readers of zarr take it."""
        if not math.isfinite(self.number):
            return next(name for name, value in _NAMED.items() if str(value) == str(self.number))
        return self.number

    def usable(self, what: str) -> int | float:
        """The number. Raises MissingDataError, where a chunk of `what` is absent and there is none."""
        if self.unusable:
            raise MissingDataError(
                f"{what} lacks chunks, and its fill_value {self.unusable} is no value of its type that they "
                "could read as; give missing as bridge or fail, or correct the metadata"
            )
        return self.number


def fill_of(value: object, dtype: str, *, none_is_zero: bool) -> Fill:
    """The fill value that metadata states for voxels of `dtype`, numpy's name."""
    if value is None and none_is_zero:
        return Fill(False) if dtype == "bool" else Fill()
    number = _number(value, dtype)
    return Fill(unusable=reprlib.repr(value)) if number is None else Fill(number)


def _number(value: object, dtype: str) -> int | float | None:
    """None where `dtype` does not have it."""
    if dtype == "bool":
        return bool(value) if value in (0, 1) else None
    if "float" in dtype:
        return _float(value, dtype)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    bounds = np.iinfo(dtype)
    return int(value) if value == int(value) and bounds.min <= value <= bounds.max else None


def _float(value: object, dtype: str) -> float | None:
    if isinstance(value, str):
        is_bits = dtype in _BITS and re.fullmatch(r"0x[0-9a-fA-F]{1,16}", value)
        return _of_bits(int(value, 16), dtype) if is_bits else _NAMED.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    limit = 3.4028234663852886e38 if dtype == "bfloat16" else float(np.finfo(dtype).max)
    return float(value) if not math.isfinite(value) or abs(value) <= limit else None


def _of_bits(bits: int, dtype: str) -> float | None:
    """Version 3 writes a float as its bits where no number would say which NaN it is."""
    size = np.dtype(dtype).itemsize
    if bits >= 1 << 8 * size:
        return None
    (number,) = struct.unpack(f"<{_BITS[dtype]}", bits.to_bytes(size, "little"))
    return float(number)
