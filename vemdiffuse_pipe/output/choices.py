"""What a run file leaves open and a run decides: arithmetic, and how planes are cut. The output keeps it.

Whoever resumes goes on with what was chosen, on whatever device and with whatever version of this package:

    identity of the output                     [model] that leaves it open
    precision, core_px                     ->  precision, core_px
    tile_px, overlap_px (version 1)        ->  overlap_px: tiles are blended, as large as they always were
"""

from __future__ import annotations

from collections.abc import Mapping

from vemdiffuse_pipe.config import Json, ModelTable, RunFile, check
from vemdiffuse_pipe.errors import ConfigError, OutputError


def with_stored_choices(table: ModelTable, identity: Mapping[str, Json]) -> ModelTable:
    """The [model] table that an output was begun with, what it left open taken from the output's identity.

    Raises OutputError where the identity holds something else than such choices.
    """
    chosen = {name: identity[name] for name in ("precision", "core_px", "overlap_px") if name in identity}
    try:
        stored = check(ModelTable, {"task": table.task, "name": table.name, **chosen})
    except ConfigError as error:
        raise OutputError(f"the identity of the output is damaged: {error}") from None
    return with_choices_of(stored, table)


def with_choices_of(stored: ModelTable, table: ModelTable) -> ModelTable:
    """`table`, what it leaves open taken from `stored`. What it states stays, and may be refused later."""
    update: dict[str, object] = {}
    if (stored.task, stored.name) != (table.task, table.name):
        return table  # it will be refused, by the name of its model
    if table.precision == "auto":
        update["precision"] = stored.precision
    if table.core_px is None and table.tile_px is None and table.overlap_px is None:
        update.update(core_px=stored.core_px, tile_px=stored.tile_px, overlap_px=stored.overlap_px)
    return table.model_copy(update=update)


def with_precision_of_device(run_file: RunFile) -> RunFile:
    """The run file, float32 stated where it leaves the precision open and the GPU here has no bfloat16.

    What GPUs elsewhere have is not known; all of 2020 and later have it.
    """
    table = run_file.run
    if run_file.model.precision != "auto" or table.is_elsewhere or not table.device.startswith("cuda"):
        return run_file
    from vemdiffuse_pipe.models.checkpoint import has_bfloat16  # imports torch

    if has_bfloat16(table.device):
        return run_file
    model = run_file.model.model_copy(update={"precision": "float32"})
    return run_file.model_copy(update={"model": model})
