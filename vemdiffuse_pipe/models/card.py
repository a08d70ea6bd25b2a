"""What a model is, readable without loading it.

A checkpoint is one safetensors file; its card is JSON in the file's own header, so the two cannot be
parted. A safetensors file begins with the length of its header (8 bytes), the header (JSON), the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from vemdiffuse_pipe.errors import ModelError

_MAX_HEADER_BYTES = 4 * 2**20

HALO_PX = {"isotropic": 0, "denoise": 0, "superres": 1}  # of networks: what doubling linearly needs

# What a card may claim. Cards are checked where they are read, from files that anyone may have written.
Text = Annotated[str, Field(max_length=10_000)]
Px = Annotated[int, Field(ge=0, le=2**16)]
Ratio = Annotated[int, Field(ge=2, le=2**31)]
Size = Annotated[int, Field(ge=0, le=2**16)]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Facts about a model; the pipeline plans with them.

    `sha256`: of the tensors' bytes (of the name, for models without weights). `min_ratio`, `max_ratio`:
    gaps it may fill. `reach_sections`: sections beyond the gap's own two that it looks at, each side.
    `context_px`: how far it looks in the plane. `multiple_px`: tiles are multiples of this.
    `task`: what it does; `halo_px`: pixels of the source around a tile that it is given whole.
    `residual_scale`: deviation of (truth - linear), in deviations of the grey levels.
    """

    name: Text
    kind: Text
    sha256: Text
    is_stochastic: bool
    is_tile_exact: bool
    reach_sections: Annotated[int, Field(ge=0, le=64)]
    context_px: Px
    multiple_px: Annotated[Px, Field(ge=1)]
    min_ratio: Ratio
    max_ratio: Ratio
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    residual_scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    channels: Annotated[tuple[Annotated[Size, Field(ge=1)], ...], Field(max_length=8)] = ()
    n_blocks: Annotated[int, Field(ge=0, le=64)] = 0
    n_basis: Size = 0
    n_embedding: Size = 0
    task: Literal["isotropic", "denoise", "superres"] = "isotropic"
    halo_px: Annotated[int, Field(ge=0, le=64)] = 0
    trained_on: Text = ""
    training: Text = ""
    voxel_size_nm: Text = ""
    licence: Text = ""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    @property
    def scale(self) -> int:
        """Pixels of the output for one of the source, along y and along x."""
        return 2 if self.task == "superres" else 1

    @property
    def is_local(self) -> bool:
        """True where it looks no further than the halo, so that its tiles may be cut anywhere."""
        return self.context_px <= self.halo_px * self.scale

    def flop_per_pixel(self, n_planes: int) -> float:
        """Floating-point operations of one evaluation of a gap, per (y, x) pixel: its convolutions."""
        if self.kind == "filter":
            return 2.0 * 2 * (2 * self.halo_px + 1)
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


def filter_card(name: str, task: Literal["denoise", "superres"], halo_px: int) -> ModelCard:
    """The card of a filter of one section that looks `halo_px` pixels of the source around: no weights."""
    card = interpolation_card(name, 0)
    return replace(
        card,
        kind="filter",
        sha256=hashlib.sha256(f"{task} {name}".encode()).hexdigest(),
        task=task,
        halo_px=halo_px,
        context_px=halo_px * (2 if task == "superres" else 1),
    )


LINEAR = interpolation_card("linear", 0)
CUBIC = interpolation_card("cubic", 12)
BUILTIN = {
    "isotropic": {"linear": LINEAR, "cubic": CUBIC},
    "denoise": {"gaussian": filter_card("gaussian", "denoise", 4)},
    "superres": {
        "linear": filter_card("linear", "superres", 1),
        "cubic": filter_card("cubic", "superres", 12),
    },
}
WEIGHTS = Path(__file__).parent / "weights"


def find_card(model: str, task: str = "isotropic") -> ModelCard:
    """The card of a model by name (one of the task's, or one that is shipped) or by path of its checkpoint.

    Raises ModelError when there is no such model, it does something else than `task`, or the file is not a
    checkpoint of ours.
    """
    if model in BUILTIN[task]:
        return BUILTIN[task][model]
    if task != "isotropic" and model in shipped_models():
        raise ModelError(
            f"model {model} fills gaps, it does not {task}; choose {' or '.join(BUILTIN[task])}, "
            "or the path of a checkpoint that was trained for it"
        )
    card = read_card(find_checkpoint(model))
    if card.task != task:
        raise ModelError(
            f"{model} was trained for task {card.task}, asked for is {task}; set task in [model]"
        )
    return card


def find_checkpoint(model: str) -> Path:
    """Path of the checkpoint that `model` names. Raises ModelError when there is none."""
    if model in shipped_models()[2:]:
        return WEIGHTS / f"{model}.safetensors"
    if os.path.isfile(model):  # noqa: PTH113 (Path's own raises for a name that is too long)
        return Path(model)
    known = ", ".join(shipped_models())
    raise ModelError(f"no model {model[:80]!r}; known: {known}, or the path of a .safetensors checkpoint")


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
    return _checked_card(str(metadata["card"]), path)


def _checked_card(text: str, path: Path) -> ModelCard:
    try:
        card = TypeAdapter(ModelCard).validate_json(text)
    except UnicodeEncodeError:
        raise ModelError(f"{path} has a model card that is no text") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise ModelError(
            f"{path} has a model card that cannot be used ({where}: {first['msg'].lower()[:200]}); "
            "is it of a newer version?"
        ) from None
    if card.kind != "lean":
        raise ModelError(f"{path} holds a model of kind {card.kind[:80]!r}; known: lean")
    sizes = (len(card.channels), card.n_blocks, card.n_basis, card.n_embedding, card.context_px)
    if card.halo_px != HALO_PX[card.task]:
        raise ModelError(f"{path} has a model card that contradicts itself: halo_px {card.halo_px}")
    if min(sizes) < 1 or card.reach_sections or not card.is_stochastic or card.min_ratio > card.max_ratio:
        raise ModelError(f"{path} has a model card that contradicts itself: no lean network is like that")
    return card


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
    except (OSError, ValueError, RecursionError) as error:
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
