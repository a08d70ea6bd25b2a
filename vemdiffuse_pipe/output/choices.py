"""What a run file leaves open and a run decides: arithmetic, and how planes are cut. The output keeps it.

Whoever resumes goes on with what was chosen, on whatever device and with whatever version of this package:

    identity of the output                     [model] that leaves it open
    model_sha256 of earlier weights        ->  name, where "default" then meant them
    precision, core_px                     ->  precision, core_px
    tile_px, overlap_px (version 1)        ->  overlap_px: tiles are blended, as large as they always were
"""

from __future__ import annotations

from collections.abc import Mapping

from vemdiffuse_pipe.cluster.binding import visible_devices
from vemdiffuse_pipe.config import Json, ModelTable, RunFile, check
from vemdiffuse_pipe.errors import ConfigError, OutputError
from vemdiffuse_pipe.models.card import EARLIER, find_card
from vemdiffuse_pipe.models.device import with_gpu


def with_stored_choices(table: ModelTable, identity: Mapping[str, Json]) -> ModelTable:
    """The [model] table that an output was begun with, what it left open taken from the output's identity.

    Raises OutputError where the identity holds something else than such choices.
    """
    chosen = {name: identity[name] for name in ("precision", "core_px", "overlap_px") if name in identity}
    try:
        name = _name_then(table, identity)
        stored = check(ModelTable, {"task": table.task, "name": name, **chosen})
    except ConfigError as error:
        raise OutputError(f"the identity of the output is damaged: {error}") from None
    return with_choices_of(stored, table)


def _name_then(table: ModelTable, identity: Mapping[str, Json]) -> str:
    """The name that the weights of an output have now."""
    earlier = EARLIER.get(table.name)
    is_earlier = earlier is not None and find_card(earlier).sha256 == identity.get("model_sha256")
    return earlier if earlier is not None and is_earlier else table.name


def with_choices_of(stored: ModelTable, table: ModelTable) -> ModelTable:
    """`table`, what it leaves open taken from `stored`. What it states stays, and may be refused later."""
    update: dict[str, object] = {}
    if stored.name == EARLIER.get(table.name):
        table = table.model_copy(update={"name": stored.name})
    if (stored.task, stored.name) != (table.task, table.name):
        return table  # it will be refused, by the name of its model
    if table.precision == "auto":
        update["precision"] = stored.precision
    if table.core_px is None and table.tile_px is None and table.overlap_px is None:
        update.update(core_px=stored.core_px, tile_px=stored.tile_px, overlap_px=stored.overlap_px)
    return table.model_copy(update=update)


def with_device_here(run_file: RunFile) -> RunFile:
    """The run file, what its device decides decided: "auto" is cuda where this machine has a GPU, float32 is
    stated where the precision is open and the GPU has no bfloat16, and local workers are one a GPU where
    their number is open.

    Of machines elsewhere nothing is known: "auto" stays, and GPUs are taken to have bfloat16.
    """
    table, model = run_file.run, run_file.model
    if table.is_elsewhere:
        return run_file
    device = with_gpu(table.device)
    if model.precision == "auto" and device.startswith("cuda"):
        from vemdiffuse_pipe.models.checkpoint import has_bfloat16  # imports torch

        if not has_bfloat16(device):
            model = model.model_copy(update={"precision": "float32"})
    update: dict[str, object] = {"device": device}
    if device == "cuda" and table.engine == "local" and "workers" not in table.model_fields_set:
        update["workers"] = max(1, len(visible_devices()))
    return run_file.model_copy(update={"run": table.model_copy(update=update), "model": model})
