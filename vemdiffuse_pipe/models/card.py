"""What a model is, readable without loading it.

A checkpoint is one safetensors file; its card is JSON in the file's own header, so the two cannot be
parted. A safetensors file begins with the length of its header (8 bytes), the header (JSON), the data.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vemdiffuse_pipe.errors import ModelError

_MAX_HEADER_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Facts about a model; the pipeline plans with them.

    `sha256`: of the tensors' bytes (of the name, for models without weights). `min_ratio`, `max_ratio`:
    gaps it may fill. `reach_sections`: sections beyond the gap's own two that it looks at, each side.
    `context_px`: how far it looks in the plane. `multiple_px`: tiles are multiples of this.
    `residual_scale`: deviation of (truth - linear), in deviations of the grey levels.
    """

    name: str
    kind: str
    sha256: str
    is_stochastic: bool
    is_tile_exact: bool
    reach_sections: int
    context_px: int
    multiple_px: int
    min_ratio: int
    max_ratio: int
    samples: int = 1
    steps: int = 1
    residual_scale: float = 1.0
    channels: tuple[int, ...] = ()
    n_blocks: int = 0
    n_basis: int = 0
    n_embedding: int = 0
    trained_on: str = ""
    training: str = ""
    voxel_size_nm: str = ""
    licence: str = ""

    def flop_per_pixel(self, n_planes: int) -> float:
        """Floating-point operations of one evaluation of a gap, per (y, x) pixel: its convolutions."""
        if self.kind != "lean":
            return 2.0 * (2 + 2 * self.reach_sections) * n_planes
        total = 2.0 * 9 * self.channels[0] * (2 + 2 * n_planes)
        for level, c in enumerate(self.channels):
            n_stages = 1 if level == len(self.channels) - 1 else 2
            total += n_stages * self.n_blocks * 2 * 18 * c * c / 4 ** (level + 1)
        for level, (a, b) in enumerate(pairwise(self.channels)):
            total += 2 * (2 * 4 * a * b) / 4 ** (level + 2)
        return total

    def to_json(self) -> str:
        """The card as JSON, keys in order."""
        return json.dumps(asdict(self))


def interpolation_card(name: str, reach_sections: int) -> ModelCard:
    """The card of an interpolation: no weights, no noise, any ratio."""
    return ModelCard(
        name=name,
        kind="interpolation",
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        is_stochastic=False,
        is_tile_exact=True,
        reach_sections=reach_sections,
        context_px=0,
        multiple_px=1,
        min_ratio=2,
        max_ratio=2**31,
    )


LINEAR = interpolation_card("linear", 0)
CUBIC = interpolation_card("cubic", 12)
WEIGHTS = Path(__file__).parent / "weights"


def find_card(model: str) -> ModelCard:
    """The card of a model by name (linear, cubic, or one that is shipped) or by path of its checkpoint.

    Raises ModelError when there is no such model, or the file is not a checkpoint of ours.
    """
    builtin = {"linear": LINEAR, "cubic": CUBIC}
    return builtin[model] if model in builtin else read_card(find_checkpoint(model))


def find_checkpoint(model: str) -> Path:
    """Path of the checkpoint that `model` names. Raises ModelError when there is none."""
    shipped = WEIGHTS / f"{model}.safetensors"
    if "/" not in model and shipped.is_file():
        return shipped
    path = Path(model)
    if path.is_file():
        return path
    known = ", ".join(shipped_models())
    raise ModelError(f"no model {model!r}; known: {known}, or the path of a .safetensors checkpoint")


def shipped_models() -> list[str]:
    """Names that `find_card` knows."""
    return ["linear", "cubic", *sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))]


def read_card(path: Path) -> ModelCard:
    """The card in the header of a checkpoint; the tensors are not read.

    Raises ModelError for a pickle, a truncated file, a foreign safetensors file or a card that is not whole.
    """
    header, n_data = _read_header(path)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or "card" not in metadata:
        raise ModelError(f"{path} holds no model card; needed: a checkpoint written by vemdiffuse_pipe")
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if max(ends, default=0) != n_data:
        raise ModelError(
            f"{path} holds {n_data} bytes of weights, its header says {max(ends, default=0)}: truncated?"
        )
    try:
        fields = json.loads(str(metadata["card"]))
        return ModelCard(**{**fields, "channels": tuple(fields["channels"])})
    except (TypeError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} has a model card that cannot be read ({error}); is it of a newer version?"
        ) from None


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
                raise ModelError(f"{path} is a pickle, which may run code when opened; needed: safetensors")
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise ModelError(f"{path} is not a safetensors file")
            header = json.loads(file.read(length))
            n_data = path.stat().st_size - 8 - length
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors ({type(error).__name__}): truncated?"
        ) from None
    entries = header.items() if isinstance(header, dict) else ()
    for name, entry in entries:
        if name != "__metadata__" and not _is_tensor_entry(entry):
            raise ModelError(f"{path} is not a safetensors file: entry {name[:40]!r}")
    if not entries:
        raise ModelError(f"{path} is not a safetensors file")
    return header, n_data


def _is_tensor_entry(entry: object) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(o, int) for o in offsets)
