"""Parts of a run: which one this process does, and which blocks are its own. Arithmetic, never a list.

What is interleaved are units: blocks, or where blocks are taken column by column, columns of them, so that a
process still walks along z. Where there are fewer columns than parts, each is cut into pieces. With n parts:

    unit            0  1  2  3  4  5  6  7  8  9 10 ..
    part, n = 3     1  2  3  1  2  3  1  2  3  1  2 ..      unit mod n: what a process does first
    helper          1  1  1  2  2  2  3  3  3  1  1 ..      unit div n mod n: what it helps with then

so that what one process leaves undone is divided between all the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Zyx

MAX_PARTS = 10**6

_COUNTED = {  # of an array: this job's number, the first, the last, the step
    "SLURM_ARRAY_TASK_ID": ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP"),
    "LSB_JOBINDEX": ("", "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"),  # LSF does not say the first: 1
    "SGE_TASK_ID": ("SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
}
_UNCOUNTED = ("PBS_ARRAY_INDEX", "PBS_ARRAYID")
_NO_ARRAY = ("", "undefined")  # what SGE says outside of one
_SLURM_COUNT = "SLURM_ARRAY_TASK_COUNT"


@dataclass(frozen=True, slots=True)
class Share:
    """The units u with u div `stride` mod `count` equal to `rest`; all of them where `count` is 1.

    `n_parts`: into how many the run is divided, which says what a unit is.
    """

    rest: int = 0
    count: int = 1
    stride: int = 1
    n_parts: int = 1

    def of_blocks(
        self, counts: Zyx, first: Zyx, shape: tuple[int, ...], *, columns: bool
    ) -> NDArray[np.bool_]:
        """Which blocks of a box of blocks, `first` and `shape`, are in the share: (z, y, x).

        `counts`: blocks of the whole run. `columns`: they are taken along z first.
        """
        z, y, x = (a + axis for a, axis in zip(first, np.ogrid[tuple(slice(n) for n in shape)], strict=True))
        nz, ny, nx = counts
        if columns:
            pieces = min(nz, -(-self.n_parts // (ny * nx)))
            unit = (y * nx + x) * pieces + z // -(-nz // pieces)
        else:
            unit = (z * ny + y) * nx + x
        return np.broadcast_to(unit // self.stride % self.count == self.rest, shape)


EVERYTHING = Share()


@dataclass(frozen=True, slots=True)
class Part:
    """The `number`-th of `count` parts, from 1. Raises ConfigError for a part that there is not."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count <= MAX_PARTS:
            raise ConfigError(
                f"part {self.number}/{self.count}; parts are numbered from 1 to their count, of at most "
                f"{MAX_PARTS}: 1/8 to 8/8"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def own(self) -> Share:
        """What this part is."""
        return Share(self.number - 1, self.count, 1, self.count)

    @property
    def helped(self) -> Share:
        """The blocks of other parts that it does first, once its own are done."""
        return Share(self.number - 1, self.count, self.count, self.count)


def parse_part(text: str, environ: Mapping[str, str]) -> Part:
    """The part that `i/n`, `auto` or `auto/n` means; auto: as `environ` numbers the jobs of an array.

    With auto/n a job's number counts modulo n, so any n successive numbers are all parts. Raises ConfigError.
    """
    if text == "auto":
        return _part_of_array(environ)
    match = re.fullmatch(r"(auto|\d{1,9})/(\d{1,9})", text, re.ASCII)
    if match is None:
        raise ConfigError(f"part {text[:40]!r}; i/n with i from 1 to n is needed, or auto, or auto/n: 3/8")
    number, count = match.groups()
    if number != "auto":
        return Part(int(number), int(count))
    name = _array(environ)
    return Part(_whole(environ, name) % max(1, int(count)) or int(count), int(count))


def _part_of_array(environ: Mapping[str, str]) -> Part:
    name = _array(environ)
    first_name, last_name, step_name = _COUNTED.get(name, ("", "", ""))
    if any(environ.get(variable, "") in _NO_ARRAY for variable in (last_name, first_name or last_name)):
        raise ConfigError(
            f"{name} numbers this job, but nothing says how many there are; write --part auto/64 for 64"
        )
    number, last = _whole(environ, name), _whole(environ, last_name)
    first = _whole(environ, first_name) if first_name else 1
    step = max(1, _whole(environ, step_name)) if environ.get(step_name, "") not in _NO_ARRAY else 1
    count = (last - first) // step + 1
    says = _whole(environ, _SLURM_COUNT) if name.startswith("SLURM") and _SLURM_COUNT in environ else count
    if (number - first) % step or not first <= number <= last or says != count:
        raise ConfigError(
            f"{name} is {number} in an array from {first} to {last} that is not evenly numbered; write "
            f"--part auto/n with the n that the run was divided into"
        )
    return Part((number - first) // step + 1, count)


def _array(environ: Mapping[str, str]) -> str:
    """The variable that numbers this job."""
    for name in (*_COUNTED, *_UNCOUNTED):
        if environ.get(name, "") not in _NO_ARRAY and (name, environ[name]) != ("LSB_JOBINDEX", "0"):
            return name
    raise ConfigError(
        f"--part auto: this is no job of an array, none of {', '.join((*_COUNTED, *_UNCOUNTED))} is set; "
        "write --part i/n, or submit an array"
    )


def _whole(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ConfigError(f"{name} is {text[:40]!r}; a whole number is needed, or --part i/n")
    return int(text)
