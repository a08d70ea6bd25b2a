"""The sizes of the network that [model] describes, and what only some kinds of network know.

A key that the kind does not have is refused; what follows from the data is not asked for:

    udim     ratio, tile_px      the one ratio of [data]; its crops are the tiles that it will be used on
    cddpm    tile_px
    sru3d    ratio
    rcan     tile_px
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields

from pydantic import TypeAdapter, ValidationError

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.models.kinds import KINDS
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.training.settings import SIZE_KEYS, NetworkTable

RESIDUAL = {
    "lean",
    "regression",
    "estimator",
    "sampler",
}  # kinds that answer with a share of what linear interpolation leaves


def sizes_of(table: NetworkTable, ratios: Iterable[int], crop_px: tuple[int, int]) -> Sizes:
    """The sizes of the network. Raises ConfigError for those that no such network has."""
    kind = KINDS[table.kind].sizes
    stated = {key: value for key in SIZE_KEYS if (value := getattr(table, key)) is not None}
    implied = _implied(table, sorted(ratios), crop_px)
    known = [name for name in _names(kind) if name not in implied]
    wrong = [key for key in stated if key not in known]
    if wrong:
        raise ConfigError(
            f"model.{wrong[0]} is no size of a network of kind {table.kind}, which has {', '.join(known)}"
        )
    _check_options(table)
    try:
        return TypeAdapter(kind).validate_json(json.dumps({**stated, **implied}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("model", *first["loc"]))[:80]
        raise ConfigError(f"{where}: {first['msg'].lower().removeprefix('value error, ')[:200]}") from None


def _names(kind: type[Sizes]) -> list[str]:
    return [field.name for field in fields(kind)]  # type: ignore[arg-type]


def _implied(table: NetworkTable, ratios: list[int], crop_px: tuple[int, int]) -> dict[str, int]:
    """Sizes that nobody states, by name."""
    names, implied = _names(KINDS[table.kind].sizes), dict[str, int]()
    if table.kind in ("udim", "cddpm"):
        implied = {"n_conditions": 2 if table.kind == "udim" else 1, "ratio": 0}
        implied["has_difficulty"] = table.difficulty
    if "tile_px" in names and not KINDS[table.kind].is_tile_exact:
        if crop_px[0] != crop_px[1]:
            raise ConfigError(
                f"data.crop_px = {list(crop_px)}; a network of kind {table.kind} looks at the whole tile, "
                "which is square: give one number, the side of the tiles that it will be used on"
            )
        implied["tile_px"] = crop_px[0]
    if table.kind in ("udim", "sru3d"):
        if len(ratios) > 1:
            raise ConfigError(
                f"data.ratios are {', '.join(map(str, ratios))}; a network of kind {table.kind} knows its "
                "planes by their numbers and serves one: give data.ratio, and no exact grid"
            )
        implied["ratio"] = ratios[0]
    return implied


def _check_options(table: NetworkTable) -> None:
    """Raises ConfigError for what goes with other kinds only."""
    kind, facts = table.kind, KINDS[table.kind]
    if table.task_facts.fills_gaps and not facts.fills_gaps:
        raise ConfigError(
            f'a network of kind {kind} restores sections; give model.task, "denoise" or "superres"'
        )
    if not table.task_facts.fills_gaps and kind in ("a2i3dem", "sru3d"):
        raise ConfigError(
            f"a network of kind {kind} fills gaps only; leave model.task out, or give another kind"
        )
    refused = {
        "residual_scale": table.residual_scale is not None and kind not in RESIDUAL,
        "difficulty": table.difficulty and not KINDS[kind].is_stochastic,
        "features": table.features is not None and kind != "a2i3dem",
    }
    for name in (name for name, is_refused in refused.items() if is_refused):
        raise ConfigError(f"model.{name} does not go with a network of kind {kind}; leave it out")
