"""Which run an output belongs to: a run resumes only its own."""

from __future__ import annotations

from collections.abc import Mapping

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import OutputError


def check_identity(output: str, stored: Mapping[str, Json], wanted: Mapping[str, Json]) -> None:
    """Raises OutputError that lists every field in which the output's run differs from this one."""
    names = [*stored, *(name for name in wanted if name not in stored)]
    differing = [name for name in names if stored.get(name) != wanted.get(name)]
    if differing:
        changes = "; ".join(_change(name, stored.get(name), wanted.get(name)) for name in differing)
        raise OutputError(
            f"{output} belongs to another run: {changes}; choose another output, or state what it "
            "was started with"
        )


def _change(name: str, old: Json, new: Json) -> str:
    """'seed 1 -> 2'; of a table only what differs in it: 'mask url a -> b'."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return ", ".join(_change(f"{name} {key}", old.get(key), new.get(key)) for key in keys)
    return f"{name} {_show(old)} -> {_show(new)}"


def _show(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_show(entry)}" for key, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return "none" if value is None else str(value)
