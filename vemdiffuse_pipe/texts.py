"""Texts of a run file that become part of a job script: what they may hold."""

from __future__ import annotations

import re

SECRET = re.compile(r"(secret|token|passw(or)?d|access_?key)\w*\s*=|://(?=[^\s/]*@)", re.IGNORECASE)


def word(value: str) -> str:
    """One word that a job script can hold. Raises ValueError."""
    if re.fullmatch(r"[\w.@:/+=,-]{1,200}", value):
        return value
    raise ValueError("a word without spaces and quotes is needed")


def line(value: str) -> str:
    """One printable line without credentials. Raises ValueError."""
    if not value.isprintable() or len(value) > 2000:
        raise ValueError("one printable line is needed")
    if SECRET.search(value):
        raise ValueError(
            "credentials do not belong in a job script; put them where the store's own programs look for them"
        )
    return value


def directive(value: str) -> str:
    """What follows a scheduler's mark in a job script. Raises ValueError."""
    if value.startswith("#"):
        raise ValueError("only what follows the scheduler's mark is needed: --constraint=a100")
    return line(value)


def walltime(value: str) -> str:
    """As HH:MM:SS, which every scheduler reads; days are made hours. Raises ValueError."""
    found = re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", value, re.ASCII)
    if found is None:
        raise ValueError("hours, minutes and seconds are needed, 04:00:00, or days before them, 1-12:00:00")
    days, hours, minutes, seconds = found.groups()
    return value if days is None else f"{int(days) * 24 + int(hours):02}:{minutes}:{seconds}"
