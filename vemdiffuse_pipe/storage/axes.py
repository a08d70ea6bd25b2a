"""Names of axes, whoever gives them, as letters: z, y and x are space, c is a channel, t is time."""

from __future__ import annotations

from collections.abc import Sequence

_LETTERS = {
    "c": "c", "channel": "c", "channels": "c", "ch": "c",
    "t": "t", "time": "t", "frame": "t",
}  # fmt: skip
_BY_TYPE = {"channel": "c", "time": "t"}


def axis_letter(name: str, kind: object = None) -> str:
    """The letter of an axis. What it is stated to be, `kind`, says more than its name."""
    if isinstance(kind, str) and kind.lower() in _BY_TYPE:
        return _BY_TYPE[kind.lower()]
    return _LETTERS.get(name.strip().lower(), name.strip().lower())


def axis_letters(names: object, rank: int) -> Sequence[str]:
    """Letters of the axes that a list names, () unless it names `rank` and z, y and x once among them."""
    if not isinstance(names, list) or len(names) != rank:
        return ()
    letters = [axis_letter(str(name)) for name in names]
    return letters if all(letters.count(axis) == 1 for axis in "zyx") else ()
