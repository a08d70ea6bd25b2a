"""Files of sections in their order: which number in their names counts sections is found from all names.

s_9.tif  s_10.tif  s_12.tif          ->  s_9.tif  s_10.tif  (none: 11)  s_12.tif
z-1.tif  z0.tif  z1.tif              ->  the dash is a minus: 1 is there with it and without it
z0.5.tif  z1.0.tif  z1.5.tif         ->  a decimal: it counts in even steps
s_z0_c0.tif  s_z0_c1.tif  s_z1_c0..  ->  refused: two numbers vary; a pattern must say which it is
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import name_numbers
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.metadata import listed
from vemdiffuse_pipe.storage.name_numbers import NamesError, is_dense, slots, step_of

_WILDCARDS = {"{z}": r"(?P<z>[-+\u2212]?\d+(?:[.,]\d+)?)", "*": ".*?"}
_MAX_PATTERN = 255  # characters: no file name is longer


@dataclass(frozen=True, slots=True)
class Numbering:
    """Files in the order of their numbers.

    `files`: None for each number that no file has. `first`, `step`: of the numbers, if any.
    """

    files: tuple[str | None, ...]
    first: Fraction | None = None
    step: Fraction = Fraction(1)

    @property
    def last(self) -> Fraction | None:
        """The number of the last file."""
        return None if self.first is None else self.first + (len(self.files) - 1) * self.step

    @property
    def n_files(self) -> int:
        """Files that are there."""
        return sum(name is not None for name in self.files)

    def name_of(self, section: int) -> str:
        """The section in words, for messages: 'section 4 (number 12)'."""
        number = "" if self.first is None else f" (number {_text(self.first + section * self.step)})"
        return f"section {section}{number}"

    def __str__(self) -> str:
        if self.first is None or self.last is None:
            return f"{self.n_files} files, in the order of letters"
        absent = len(self.files) - self.n_files
        lost = f", {absent} absent" if absent else ""
        counted = f"{_text(self.first)} to {_text(self.last)}, step {_text(self.step)}"
        return f"{self.n_files} files, numbered {counted}{lost}"


def in_order(address: Address, names: Sequence[str], pattern: str | None = None) -> Numbering:
    """The sections among the files `names` of the folder `address`.

    `pattern`: a name with {z} where the section's number is, and * for anything: other files are passed over.
    Raises SourceError where it is not certain which number counts the sections, where two files have the same
    one, or where more than half of them are absent.
    """
    if pattern is not None:
        return _numbered(address, _matching(address, names, pattern))
    if not any(map(re.compile(r"\d").search, names)):
        return _lettered(address, sorted(names, key=str.lower))
    try:
        return _numbered(address, name_numbers.counting(names))
    except NamesError as error:
        raise SourceError(
            f"{address}: {error}; say which number counts the sections, with * for anything: "
            f'--pattern "{name_numbers.suggested_pattern(names)}"'
        ) from None


def _matching(address: Address, names: Sequence[str], pattern: str) -> dict[str, Fraction]:
    parts = re.split(r"(\{z\}|\*)", pattern)
    if parts.count("{z}") != 1 or len(pattern) > _MAX_PATTERN:
        raise SourceError(
            f"the pattern {pattern!r} needs {{z}} once, where the number of the section is: s_{{z}}.tif"
        )
    form = re.compile("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts), re.IGNORECASE)
    found = {name: match["z"] for name in names if (match := form.fullmatch(name))}
    if len(found) < 2:
        raise SourceError(
            f"{address} has {len(found)} files like {pattern!r}; two sections are needed; "
            f"it holds {listed(sorted(names)[:9])}"
        )
    return {name: name_numbers.number(digits) for name, digits in found.items()}


def _numbered(address: Address, numbers: Mapping[str, Fraction]) -> Numbering:
    """The files at the places of their numbers."""
    ordered = sorted(numbers, key=lambda name: (numbers[name], name))
    values = [numbers[name] for name in ordered]
    number, n_same = Counter(values).most_common(1)[0]
    if n_same > 1:
        same = [name for name in ordered if numbers[name] == number]
        raise SourceError(
            f"{address} has two files for one number, {same[0]} and {same[1]}; a section needs one file: "
            'take the others out, or name those that are meant: --pattern "s_{z}.tif"'
        )
    if not is_dense(values):
        raise SourceError(
            f"{address} has {len(values)} files numbered {_text(values[0])} to {_text(values[-1])}; "
            "more than half are absent: number the sections that are there without gaps"
        )
    step = step_of(values)
    places = dict(zip(slots(values), ordered, strict=True))
    files = tuple(places.get(i) for i in range(max(places) + 1))
    return Numbering(files, values[0], step)


def _lettered(address: Address, names: Sequence[str]) -> Numbering:
    """Names without a number: in order where one letter is all that differs."""
    differing = {
        i for name in names for i, letter in enumerate(name.lower()) if letter != names[0].lower()[i : i + 1]
    }
    if len(set(map(len, names))) > 1 or len(differing) > 1:
        raise SourceError(
            f"{address} holds {listed(names)}: no number counts the sections; number the files, or take out "
            "those that are none"
        )
    return Numbering(tuple(names))


def _text(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else str(float(number))
