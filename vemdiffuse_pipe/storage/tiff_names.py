"""Files of sections in their order, by the numbers in their names.

s_9.tif  s_10.tif  s_12.tif    ->    s_9.tif  s_10.tif  (none: 11)  s_12.tif
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage.address import Address


def in_order(address: Address, names: Sequence[str]) -> tuple[str | None, ...]:
    """The files in natural order, and None for each number that is left out.

    A section is absent where one number in the names counts up, in even steps but for a gap. Where more
    than one number differs, or the words do, nothing is known to be absent. Raises SourceError where two
    files have the same number, or fewer than half of the numbers are there.
    """
    ordered = sorted(names, key=_natural)
    numbers = _counting(ordered)
    if numbers is None or len(numbers) < 2:
        return tuple(ordered)
    step = math.gcd(*(b - a for a, b in pairwise(numbers)))
    if len(set(numbers)) < len(numbers):
        raise SourceError(f"{address} has two files for one number; a folder of sections needs one for each")
    n_sections = (numbers[-1] - numbers[0]) // step + 1
    if n_sections > 2 * len(numbers):
        raise SourceError(
            f"{address} has {len(numbers)} files numbered {numbers[0]} to {numbers[-1]}; "
            "more than half are absent: number the sections that are there without gaps"
        )
    by_number = dict(zip(numbers, ordered, strict=True))
    return tuple(by_number.get(numbers[0] + i * step) for i in range(n_sections))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def _counting(names: Sequence[str]) -> list[int] | None:
    """The one number that differs between the names; None where anything else does."""
    if any(_words(name) != _words(names[0]) for name in names):
        return None
    columns = [column for column in zip(*map(_numbers, names), strict=True) if len(set(column)) > 1]
    return list(columns[0]) if len(columns) == 1 else None


def _words(name: str) -> list[str]:
    return re.split(r"\d+", name.lower())


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]
