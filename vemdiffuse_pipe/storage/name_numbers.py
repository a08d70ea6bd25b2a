"""The numbers in the names of a folder, and which of them counts the files.

sec_0001_20210304_1207.tif    words    "sec_"  "_"       "_"
                              columns  0001    20210304  1207    those that vary must count up together
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from vemdiffuse_pipe.storage.metadata import listed

_MINUS = "\u2212"  # the sign of mathematics, which no keyboard writes by accident
_SIGN = rf"([-+{_MINUS}]?)"
_INTEGERS = re.compile(rf"{_SIGN}(\d+)")
_DECIMALS = re.compile(rf"{_SIGN}(\d+(?:[.,]\d+)?)")
_SUFFIX = re.compile(r"\.tiff?$", re.IGNORECASE)


class NamesError(Exception):
    """It is not certain which number counts the files: a clause, for a longer sentence."""


@dataclass(frozen=True, slots=True)
class Column:
    """The number at one place of every name: the word before it, and (sign, digits) of each name."""

    word: str
    written: tuple[tuple[str, str], ...]

    @property
    def values(self) -> list[Fraction]:
        """The numbers, once it is decided what signs mean."""
        return [number(sign + digits) for sign, digits in self.written]

    @property
    def n_values(self) -> int:
        """How many different ones."""
        return len(set(self.written))


def number(text: str) -> Fraction:
    """The number that is written: '-0,5' is -1/2."""
    if text.isdecimal():
        return Fraction(int(text))  # ten times as fast
    return Fraction(text.replace(",", ".").replace(_MINUS, "-"))


def counting(names: Sequence[str]) -> dict[str, Fraction]:
    """The number of each file. Raises NamesError where it is not certain which it is."""
    columns = _columns(names, _INTEGERS) or _columns(names, _DECIMALS)
    if columns is None:
        raise NamesError(_odd_ones(names))
    columns = _with_decimals([_with_signs(column, is_first=i == 0) for i, column in enumerate(columns)])
    return dict(zip(names, _the_one_that_counts(columns, names).values, strict=True))


def suggested_pattern(names: Sequence[str]) -> str:
    """One file's name with {z} where a section's number may be, and * where each name has another one."""
    alike = _largest_group(names)
    columns = _columns(alike, _INTEGERS) or []
    counts = [column.n_values for column in columns]
    is_index = [n == len(alike) > 1 for n in counts]
    repeated = [n for n, is_free in zip(counts, is_index, strict=True) if n > 1 and not is_free]
    most = max(repeated if len(repeated) > 1 else counts, default=0)
    pieces = []
    for i, column in enumerate(columns):
        text = "*" if is_index[i] else "".join(column.written[0])
        pieces += [column.word, "{z}" if i == counts.index(most) else text]
    return "".join(pieces) + (_INTEGERS.split(alike[0])[-1] if columns else alike[0])


def slots(values: Sequence[Fraction]) -> list[int]:
    """The place of each number, in the steps that all of them are apart."""
    step, first = step_of(values), min(values)
    return [int((value - first) / step) for value in values]


def step_of(values: Sequence[Fraction]) -> Fraction:
    """The largest step that leads from each number to the next; 1 where all are the same."""
    apart = [b - a for a, b in pairwise(sorted(values)) if b > a]
    scale = math.lcm(*(step.denominator for step in apart))
    return Fraction(math.gcd(*(int(step * scale) for step in apart)), scale) if apart else Fraction(1)


def is_dense(values: Sequence[Fraction]) -> bool:
    """True where at least half of the numbers from the first to the last are there."""
    return (max(values) - min(values)) / step_of(values) + 1 <= 2 * len(values)


def _columns(names: Sequence[str], form: re.Pattern[str]) -> list[Column] | None:
    """The numbers of all names, place by place; None where the words between them differ."""
    if len({_words(name, form) for name in names}) > 1:
        return None
    found = [form.findall(_stem(name)) for name in names]
    words = _words(names[0], form)
    return [Column(word, tuple(c)) for word, c in zip(words, zip(*found, strict=True), strict=False)]


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name).lower()


def _words(name: str, form: re.Pattern[str]) -> tuple[str, ...]:
    """What is between the numbers; a split has the sign and the digits after each."""
    return tuple(form.split(_stem(name))[::3])


def _largest_group(names: Sequence[str]) -> list[str]:
    words, _ = Counter(_words(name, _INTEGERS) for name in names).most_common(1)[0]
    return [name for name in names if _words(name, _INTEGERS) == words]


def _odd_ones(names: Sequence[str]) -> str:
    alike = _largest_group(names)
    odd = sorted(set(names) - set(alike))
    if 2 * len(alike) <= len(names):
        return f"its files are named in several ways, such as {alike[0]} and {odd[0]}"
    return f"{listed(odd)} is not named like the other {len(alike)} files, such as {alike[0]}: take it out"


def _with_signs(column: Column, *, is_first: bool) -> Column:
    """The column with a sign where a dash is one, and without where it only separates.

    A dash separates unless another separator is before it (z=-3), or the same digits are there with and
    without it (z-1, z1), or zero alone is without it. Raises NamesError where neither is certain.
    """
    signs = {sign for sign, _ in column.written}
    if signs <= {"", "+"} or _MINUS in signs or {"-", "+"} <= signs:
        return column
    if column.word and not column.word[-1].isalnum():
        return column
    if signs == {"-"} and (column.word or not is_first):
        return Column(column.word, tuple(("", digits) for _, digits in column.written))
    dashed = {number(digits) for sign, digits in column.written if sign}
    plain = {number(digits) for sign, digits in column.written if not sign}
    if plain and (dashed & plain or plain == {0}):
        return column
    sign, digits = next(v for v in column.written if v[0])
    raise NamesError(f"the dash in {column.word}{sign}{digits} may be a minus sign or a separator")


def _with_decimals(columns: list[Column]) -> list[Column]:
    """Two columns with a point between them as one, where together they are decimals."""
    joined = [
        bool(i) and c.word in (".", ",") and not any(s for s, _ in c.written) for i, c in enumerate(columns)
    ]
    for i in range(1, len(columns)):
        is_chain = joined[i - 1] or joined[i + 1 : i + 2] == [True]  # 2021.03.04 is a date
        if joined[i] and not is_chain and _are_decimals(columns[i - 1], columns[i]):
            whole, after = columns[i - 1 : i + 1]
            pairs = zip(whole.written, after.written, strict=True)
            written = tuple((sign, f"{before}.{digits}") for (sign, before), (_, digits) in pairs)
            return columns[: i - 1] + _with_decimals([Column(whole.word, written), *columns[i + 1 :]])
    return columns


def _are_decimals(whole: Column, after: Column) -> bool:
    """True where the digits after the point are a fraction, False where they are a number of their own.

    Raises NamesError where both would count the files.
    """
    if after.n_values == 1:
        return False  # the order is the same
    n_files = len(whole.written)
    pairs = zip(whole.written, after.written, strict=True)
    decimals = [number(f"{sign}{before}.{digits}") for (sign, before), (_, digits) in pairs]
    are_even = len(set(decimals)) == n_files and is_dense(decimals)
    if whole.n_values == 1:
        if len({len(digits) for _, digits in after.written}) == 1:
            return False  # the order is the same
        counts_alone = after.n_values == n_files and is_dense(after.values)
    else:
        is_table = n_files == whole.n_values * after.n_values
        counts_alone = is_table and step_of(after.values) == 1 and is_dense(after.values)
    if are_even and counts_alone:
        example = f"{whole.written[0][1]}.{after.written[0][1]}"
        raise NamesError(f"{example} may be a decimal or two numbers")
    return are_even


def _the_one_that_counts(columns: Sequence[Column], names: Sequence[str]) -> Column:
    """The column that counts the files: the only one that varies, or one of those that count up together."""
    varying = [column for column in columns if column.n_values > 1] or [columns[-1]]
    if len(varying) == 1:
        return varying[0]
    shown = " and ".join(_range(column) for column in varying)
    refusal = NamesError(f"{len(varying)} numbers vary in the names, such as {min(names)}: {shown}")
    distinct = [column for column in varying if len(set(column.values)) == len(names)]
    if not distinct:
        raise refusal
    order = sorted(range(len(names)), key=distinct[0].values.__getitem__)
    dense = [column for column in distinct if is_dense(column.values)]
    if not dense or not all(_counts_up(column, order) for column in varying):
        raise refusal
    if len({tuple(slots(column.values)) for column in dense}) > 1:  # they leave out different files
        raise refusal
    return dense[0]


def _counts_up(column: Column, order: Sequence[int]) -> bool:
    """True where the column never falls in that order, and is no second index: a date, not a channel.

    Each of a few channels comes equally often; a date does not.
    """
    values = column.values
    times = set(Counter(values).values())
    is_rising = all(values[a] <= values[b] for a, b in pairwise(order))
    return is_rising and (times == {1} or len(times) > 1)


def _range(column: Column) -> str:
    ordered = sorted(column.written, key=lambda v: number("".join(v)))
    return f"{column.word}{''.join(ordered[0])} to {column.word}{''.join(ordered[-1])}"
