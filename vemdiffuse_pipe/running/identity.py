"""Whose output is it? A run goes on only with an output that is its own."""

from __future__ import annotations

from collections.abc import Mapping

from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.plan.plan import Json


def check_identity(output: str, stored: Mapping[str, Json], wanted: Mapping[str, Json]) -> None:
    """Raises OutputError that lists every field in which the output's run differs from this one."""
    names = [*stored, *(name for name in wanted if name not in stored)]
    differing = [name for name in names if stored.get(name) != wanted.get(name)]
    if differing:
        changes = "; ".join(
            f"{name} {_show(stored.get(name))} -> {_show(wanted.get(name))}" for name in differing
        )
        raise OutputError(
            f"{output} belongs to another run: {changes}; choose another output, or give what it "
            "was begun with"
        )


def _show(value: Json) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_show, value))}]"
    return "none" if value is None else str(value)
