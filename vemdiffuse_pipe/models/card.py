"""What a model is, readable without loading it.

A checkpoint is one safetensors file; its card is JSON in the file's own header, so the two cannot be
parted. A safetensors file begins with the length of its header (8 bytes), the header (JSON), the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from vemdiffuse_pipe.config import Task, Voxel
from vemdiffuse_pipe.errors import ModelError
from vemdiffuse_pipe.models.kinds import KINDS, USUAL_STEPS, Kind
from vemdiffuse_pipe.models.sizes.gap import SamplerSizes
from vemdiffuse_pipe.models.sizes.parameter_free import FilterSizes, FlowSizes, InterpolationSizes
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.models.tasks import TASKS

_MAX_HEADER_BYTES = 4 * 2**20

# What a card may claim. Cards are checked where they are read, from files that anyone may have written.
Text = Annotated[str, Field(max_length=10_000)]
Px = Annotated[int, Field(ge=0, le=2**16)]
Ratio = Annotated[int, Field(ge=2, le=2**31)]
Size = bool | int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Facts about a model; the pipeline plans with them.

    `sha256`: of the tensors' bytes (of the name, for models without weights). `min_ratio`, `max_ratio`:
    gaps it may fill. `reach_sections`: sections beyond the gap's own two that it looks at, each side.
    `context_px`: how far it looks in the plane. `multiple_px`: tiles are multiples of this. `tile_px`: the
    only size of tile it takes; 0: any. `tile_deviation`: grey levels by which two tiles differ where they
    overlap, measured; 0 where it is exact beyond its context, or nobody measured. `residual_scale`:
    deviation of (truth - linear), in deviations of the grey levels. `sizes`: of its network, by name.
    `task`: what it does; `halo_px`: pixels of the source around a tile that it is given whole. `figures`:
    what was measured of it, and on what. `held_back`: of the volume that it was adapted to, the first and the
    stop voxel of what it has not learnt from, zyx.
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
    sampler: Text = ""
    tile_px: Px = 0
    tile_deviation: Annotated[float, Field(ge=0, le=255)] = 0.0
    sizes: Annotated[dict[str, Size], Field(max_length=32)] = field(default_factory=dict)
    task: Task = "isotropic"
    halo_px: Annotated[int, Field(ge=0, le=64)] = 0
    trained_on: Text = ""
    training: Text = ""
    voxel_size_nm: Text = ""
    licence: Text = ""
    figures: Text = ""
    held_back: tuple[Voxel, Voxel, Voxel, Voxel, Voxel, Voxel] | tuple[()] = ()

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    @property
    def facts(self) -> Kind:
        """What holds for every model of its kind."""
        return KINDS[self.kind]

    @property
    def network_sizes(self) -> Sizes:
        """The sizes of its network, or of the interpolation."""
        return self.facts.sizes(**self.sizes)

    @property
    def fills_gaps(self) -> bool:
        """True where it makes planes between sections; False where it restores sections one by one."""
        return TASKS[self.task].fills_gaps

    @property
    def scale(self) -> int:
        """Pixels of the output for one of the source, along y and along x."""
        return TASKS[self.task].scale

    @property
    def is_local(self) -> bool:
        """True where it looks no further than the halo, so that its tiles may be cut anywhere."""
        return self.context_px <= self.halo_px * self.scale

    @property
    def tile_halo_px(self) -> int:
        """Pixels around what a tile contributes, in whole multiples, beyond which nothing changes it.

        `context_px` counts from any pixel of a cell of `multiple_px`. What a tile contributes is made of
        whole cells, and convolutions look equally far from the first and the last pixel of a cell.
        """
        within_cell = self.multiple_px - 1 if self.facts.is_convolutional else 0
        return -(-(self.context_px - within_cell) // self.multiple_px) * self.multiple_px

    @property
    def samplers(self) -> tuple[str, ...]:
        """What can drive it, by name; none where it draws no samples."""
        return self.facts.samplers

    def steps_of(self, sampler: str) -> int:
        """Evaluations that are usual with a sampler: as recommended with its own."""
        return self.steps if sampler == self.sampler else USUAL_STEPS[sampler]

    @property
    def needs_contrast(self) -> bool:
        """True where the mean and deviation of the volume's grey levels must be known."""
        return self.facts.needs_contrast

    @property
    def has_estimate(self) -> bool:
        """True where one pass gives a best estimate and its spread."""
        return self.facts.has_estimate

    @property
    def needs_sectioning(self) -> bool:
        """True where it is told how thick sections are, and how thick planes are wanted."""
        return self.facts.needs_sectioning

    def flop_per_pixel(self, n_planes: int) -> float:
        """Floating-point operations of one evaluation of a gap, per (y, x) pixel."""
        return self.network_sizes.flop_per_pixel(n_planes)

    def estimate_flop_per_pixel(self, n_planes: int) -> float:
        """Those of the best estimate of a gap and its spread; 0 for models that make none."""
        sizes = self.network_sizes
        estimator = sizes.estimator if isinstance(sizes, SamplerSizes) else sizes
        return estimator.flop_per_pixel(n_planes) if self.has_estimate else 0.0

    def bytes_per_pixel(self, n_planes: int, itemsize: int) -> int:
        """Upper bound of the memory of one evaluation, per pixel of a tile, at `itemsize` bytes a number."""
        return self.network_sizes.bytes_per_pixel(n_planes, itemsize)

    def to_json(self) -> str:
        """The card as JSON, keys in order."""
        return json.dumps(asdict(self))


def with_network(card: ModelCard, sizes: Sizes) -> ModelCard:
    """The card with the sizes of its network, and all that its kind and they say."""
    kind = KINDS[card.kind]
    return replace(
        card,
        is_stochastic=kind.is_stochastic,
        is_tile_exact=kind.is_tile_exact,
        reach_sections=sizes.reach_sections,
        context_px=sizes.context_px,
        multiple_px=sizes.multiple_px,
        tile_px=sizes.tile_px,
        halo_px=TASKS[card.task].halo_px,
        sampler=card.sampler or next(iter(kind.samplers), ""),
        sizes=asdict(sizes),  # type: ignore[call-overload]
    )


def interpolation_card(name: str, reach_sections: int) -> ModelCard:
    """The card of an interpolation: no weights, no noise, any ratio."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    card = ModelCard(name, "interpolation", sha256, False, True, 0, 0, 1, 2, 2**31)
    return with_network(card, InterpolationSizes(reach_sections))


def flow_card(name: str) -> ModelCard:
    """The card of optical flow: no weights, no noise, any ratio. `tile_deviation`: on FIB-SEM at r = 5."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    card = ModelCard(name, "flow", sha256, False, False, 0, 0, 1, 2, 2**31, tile_deviation=1.25)
    return with_network(card, FlowSizes())


def filter_card(name: str, task: Task, halo_px: int) -> ModelCard:
    """The card of a filter of one section that looks `halo_px` pixels of the source around: no weights."""
    sha256 = hashlib.sha256(f"{task} {name}".encode()).hexdigest()
    card = ModelCard(name, "filter", sha256, False, True, 0, 0, 1, 2, 2**31, task=task)
    return replace(with_network(card, FilterSizes(halo_px, TASKS[task].scale)), halo_px=halo_px)


LINEAR = interpolation_card("linear", 0)
CUBIC = interpolation_card("cubic", 12)
FLOW = flow_card("flow")
BUILTIN: dict[Task, dict[str, ModelCard]] = {
    "isotropic": {"linear": LINEAR, "cubic": CUBIC, "flow": FLOW},
    "denoise": {"gaussian": filter_card("gaussian", "denoise", 4)},
    "superres": {
        "linear": filter_card("linear", "superres", 1),
        "cubic": filter_card("cubic", "superres", 12),
    },
}
WEIGHTS = Path(__file__).parent / "weights"
AUTO = "auto"  # not a model yet: a self-test chooses one when a run begins
EARLIER = {"default": "fib25-2026-11"}  # what a name meant before: runs begun with it go on with it
ONE_PASS = {"one-pass": "fib25-2026-11"}  # the same weights, evaluated once: the best single estimate


def find_card(model: str, task: Task = "isotropic") -> ModelCard:
    """The card of a model by name (one of the task's, or one that is shipped) or by path of its checkpoint.

    Raises ModelError when there is no such model, it does something else than `task`, or the file is not a
    checkpoint of ours.
    """
    if model in BUILTIN[task]:
        return BUILTIN[task][model]
    if not TASKS[task].fills_gaps and model in shipped_models():
        raise ModelError(
            f"model {model} fills gaps, it does not {task}; choose {' or '.join(BUILTIN[task])}, "
            "or the path of a checkpoint that was trained for it"
        )
    card = read_card(find_checkpoint(model))
    if card.task != task:
        raise ModelError(
            f"{model} was trained for task {card.task}, asked for is {task}; set task in [model]"
        )
    return replace(card, name=model, samples=1, steps=1) if model in ONE_PASS else card


def find_checkpoint(model: str) -> Path:
    """Path of the checkpoint that `model` names. Raises ModelError when there is none."""
    if model in _with_weights():
        return WEIGHTS / f"{ONE_PASS.get(model, model)}.safetensors"
    if os.path.isfile(model):  # noqa: PTH113 (Path's own raises for a name that is too long)
        return Path(model)
    if model == AUTO:
        raise ModelError(
            f"model {AUTO} is chosen by a self-test when a run begins, so that it cannot be planned before; "
            "name a model here: `vemdiffuse selftest SOURCE` says which"
        )
    known = ", ".join(shipped_models())
    raise ModelError(f"no model {model[:80]!r}; known: {known}, or the path of a .safetensors checkpoint")


def shipped_models() -> list[str]:
    """Names that `find_card` knows."""
    return [*BUILTIN["isotropic"], *_with_weights()]


def _with_weights() -> list[str]:
    return sorted([*ONE_PASS, *(p.stem for p in WEIGHTS.glob("*.safetensors"))])


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
        raise ModelError(
            f"{path} has a model card that cannot be used ({_first(error)}); is it of a newer version?"
        ) from None
    if card.kind not in KINDS or not card.facts.needs_weights:
        known = ", ".join(name for name, kind in KINDS.items() if kind.needs_weights)
        raise ModelError(f"{path} holds a model of kind {card.kind[:80]!r}; known: {known}")
    _check_sizes(card, path)
    return card


def _check_sizes(card: ModelCard, path: Path) -> None:
    """Raises ModelError unless the card says of its network what the network's sizes say."""
    try:
        sizes = TypeAdapter(card.facts.sizes).validate_json(json.dumps(card.sizes))
    except ValidationError as error:
        raise ModelError(f"{path} has a model card that cannot be used (sizes.{_first(error)})") from None
    expected = with_network(card, sizes)
    for name in _FROM_SIZES:
        stated, right = getattr(card, name), getattr(expected, name)
        if stated != right:
            raise ModelError(
                f"{path} has a model card that contradicts itself: it says {name} {stated}; "
                f"a {card.kind} network of its sizes has {right}"
            )
    if card.sampler not in (card.samplers or ("",)):
        raise ModelError(
            f"{path} has a model card that names the sampler {card.sampler[:80]!r}; "
            f"a {card.kind} network has {', '.join(card.samplers) or 'none'}"
        )
    can_restore = not card.reach_sections and card.min_ratio == 2 and card.multiple_px % card.scale == 0
    if not card.fills_gaps and not can_restore:
        raise ModelError(
            f"{path} has a model card that contradicts itself: task {card.task} needs a network that fills "
            "gaps of ratio 2 from two sections"
        )
    if card.fills_gaps and not card.facts.fills_gaps:
        raise ModelError(
            f"{path} has a model card that contradicts itself: a network of kind {card.kind} restores "
            "sections, it fills no gap"
        )
    if card.min_ratio > card.max_ratio or sizes.ratio not in (0, card.min_ratio):
        raise ModelError(
            f"{path} has a model card that contradicts itself: ratio {card.min_ratio} to {card.max_ratio}"
        )


_FROM_SIZES = (
    "is_stochastic",
    "is_tile_exact",
    "reach_sections",
    "context_px",
    "multiple_px",
    "tile_px",
    "halo_px",
)


def _first(error: ValidationError) -> str:
    """Where the first thing is wrong, and how."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:80]
    return f"{where}: {first['msg'].lower()[:200]}"


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= _MAX_HEADER_BYTES:
                if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
                    raise ModelError(
                        f"{path} is a pickle, which may run code when opened; needed: safetensors"
                    )
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
