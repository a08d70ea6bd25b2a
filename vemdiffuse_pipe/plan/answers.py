"""What a run answers: which arrays, how samples are drawn, and what a model is asked for that it must know.

model                em            uncertainty          sample      sample_spread
interpolation        its planes
one pass             its planes
estimator            estimate      spread of estimate
diffusion            mean of K     spread of K, K > 1   draw 0
estimator-sampler    estimate      spread of estimate   draw 0      spread of K, K > 1
"""

from __future__ import annotations

from dataclasses import dataclass

from vemdiffuse_pipe.config import ArrayName, RunFile
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.models.card import ModelCard
from vemdiffuse_pipe.volume import VolumeSpec

THICKER = 0.01  # by which sections may be stated to be thicker than they lie apart: rounding


@dataclass(frozen=True, slots=True)
class Sampling:
    """How samples are drawn: K, evaluations, seed, arithmetic, sampler. K is 0 where an estimate is all."""

    samples: int
    steps: int
    seed: int
    precision: str
    sampler: str


def choose_arrays(run_file: RunFile, card: ModelCard) -> tuple[ArrayName, ...]:
    """What is written: as asked for, else what the model gives. Raises PlanError for what it cannot give."""
    samples = run_file.model.samples
    possible: list[ArrayName] = ["em"]
    if card.has_estimate or (card.is_stochastic and (samples or card.samples) > 1):
        possible.append("uncertainty")
    if card.is_stochastic:
        possible.append("sample")
    if card.is_stochastic and card.has_estimate and (samples or 1) > 1:
        possible.append("sample_spread")
    asked = run_file.output.arrays
    if asked is None:
        drawn = card.is_stochastic and card.has_estimate and samples is not None
        return tuple(name for name in possible if drawn or not name.startswith("sample"))
    if "em" not in asked or len(set(asked)) < len(asked):
        raise PlanError(f"output.arrays = {list(asked)}; needed: em, and each name once")
    impossible = [name for name in asked if name not in possible]
    if impossible:
        raise PlanError(
            f"output.arrays names {', '.join(impossible)}; model {card.name} with samples = "
            f"{samples or card.samples} gives {', '.join(possible)}"
        )
    return tuple(name for name in possible if name in asked)


def check_answers(run_file: RunFile, source: VolumeSpec, card: ModelCard) -> None:
    """Raises PlanError for a thickness that cannot be, and for what the model cannot give."""
    table, thickness = run_file.model, run_file.source.section_thickness_nm
    dz, *_ = source.frame.voxel_size_nm
    if thickness is not None and thickness > dz * (1 + THICKER):
        raise PlanError(
            f"section_thickness_nm = {thickness:g}; sections that lie {float(dz):g} nm apart are not thicker "
            "than that: correct it, or the voxel size"
        )
    if table.plane_thickness == "thin" and not card.needs_sectioning:
        raise PlanError(
            f'plane_thickness = "thin"; model {card.name} makes planes as thick as sections; leave it out, '
            "or choose a model that is told of thickness, such as default"
        )
    if table.sections == "estimate" and not card.has_estimate:
        raise PlanError(
            f'sections = "estimate"; model {card.name} makes no estimate of planes at sections; leave it '
            "out, or choose a model that does, such as default"
        )


def choose_sampling(run_file: RunFile, card: ModelCard) -> Sampling:
    """K, evaluations, sampler and arithmetic: as asked for, else as the model's card recommends."""
    table = run_file.model
    precision = "float32" if card.is_local else choose_precision(run_file)
    draws = [name for name in choose_arrays(run_file, card) if name.startswith("sample")]
    if not card.is_stochastic:
        if (table.samples or 1) > 1 or table.sampler:
            what = "samples out, or set it to 1" if (table.samples or 1) > 1 else "sampler out"
            raise PlanError(f"model {card.name} draws no samples; leave {what}")
        return Sampling(0, 0, 0, precision, "") if card.has_estimate else Sampling(1, 1, 0, precision, "")
    if card.has_estimate and not draws:
        return Sampling(0, 0, 0, precision, "")
    sampler = table.sampler or card.sampler
    if sampler not in card.samplers:
        raise PlanError(
            f"model {card.name} cannot be driven by {sampler}; choose {' or '.join(card.samplers)}"
        )
    steps = table.steps or card.steps_of(sampler)
    samples = table.samples or (1 if card.has_estimate else card.samples)
    return Sampling(samples, steps, table.seed, precision, sampler)


def is_on_gpu(run_file: RunFile) -> bool:
    """True where a run is rendered on GPUs."""
    return run_file.run.device.startswith("cuda")


def choose_precision(run_file: RunFile) -> str:
    """The arithmetic asked for; of "auto" bfloat16 on a GPU, float32 elsewhere."""
    asked = run_file.model.precision
    return ("bfloat16" if is_on_gpu(run_file) else "float32") if asked == "auto" else asked
