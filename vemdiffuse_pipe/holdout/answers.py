"""What a model makes of a place: the section that was left out, as best estimate and as one sample.

The section lies in the middle of a gap of 2 r planes between its neighbours, rendered as a run renders it. A
network that fills no gap as wide is asked for fewer planes between the same sections: the middle stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.config import ModelTable, OutputTable, RunFile, RunTable, SourceTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.holdout.places import Place
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.checkpoint import as_model
from vemdiffuse_pipe.models.protocol import Model, Sectioning, Settings
from vemdiffuse_pipe.output.preparation import open_run_model
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.plan.planes import exact_ratio
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

Contrast = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """The section that was left out, made: (y, x) uint8. `sample`: None where the model draws none."""

    estimate: Voxels
    sample: Voxels | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be tested, its weights loaded. `ratio`: of the gaps that it is tested on, an even number."""

    name: str
    card: ModelCard
    model: Model
    ratio: int
    run: RunTable


def load_candidate(name: str, spec: VolumeSpec, r: int, contrast: Contrast, device: str = "cpu") -> Candidate:
    """The model that `name` means, for a volume whose gaps are r wide.

    Raises ModelError, and ConfigError for one that makes no plane in the middle of a doubled gap.
    """
    card, run = find_card(name), RunTable(device=device)
    ratio = doubled_ratio(card, r)
    plan = _plan(card, name, _twice_as_far(spec), ratio, contrast, run, seed=0)
    return Candidate(name, card, open_run_model(plan), ratio, run)


def candidate_of(
    card: ModelCard, network: nn.Module, spec: VolumeSpec, contrast: Contrast, device: str = "cpu"
) -> Candidate:
    """A network in training as a model to be tested; it is not changed, and must not change meanwhile."""
    run, ratio = (
        RunTable(device=device),
        doubled_ratio(card, max(1, round(exact_ratio(spec.frame.voxel_size_nm)))),
    )
    plan = _plan(card, card.name, _twice_as_far(spec), ratio, contrast, run, seed=0)
    sampling, cut = plan.sampling, Sectioning(*plan.sectioning_nm)
    settings = Settings(sampling.steps, sampling.sampler, contrast, sampling.precision, cut)
    return Candidate(card.name, card, as_model(card, network, settings), ratio, run)


def doubled_ratio(card: ModelCard, r: int) -> int:
    """Width, in planes, of the gaps that a model is tested on where real ones are r wide: an even number.

    Raises ConfigError for a model that fills no gap with a plane in its middle.
    """
    asked = min(2 * r, card.max_ratio // 2 * 2)
    if asked < card.min_ratio:
        raise ConfigError(
            f"model {card.name} fills gaps of ratio {card.min_ratio} alone, which have no plane in their "
            "middle, where a section that is left out would lie; leave it out of the models"
        )
    return asked


def answer(candidate: Candidate, place: Place, spec: VolumeSpec, contrast: Contrast, seed: int) -> Answer:
    """What a model makes of a place of the volume `spec`. `seed`: of its samples."""
    run, n_gaps = candidate.run, place.given.shape[0] - 1
    around = _twice_as_far(spec, place.given.shape)
    plan = _plan(candidate.card, candidate.name, around, candidate.ratio, contrast, run, seed=seed)
    plane = n_gaps // 2 * candidate.ratio + candidate.ratio // 2
    box = Box((plane, 0, 0), (plane + 1, *plan.output.shape[1:]))
    hardware = Hardware(run.device, threads_per_worker(run))
    out = render_block(plan, candidate.model, place.given[plan.source_box(box).slices], box, hardware)
    return Answer(out["em"][0], out["sample"][0] if "sample" in out else None)


def _twice_as_far(spec: VolumeSpec, shape: Zyx | None = None) -> VolumeSpec:
    """A volume of every second section of `spec`; of `shape` where one is given."""
    z, y, x = spec.frame.voxel_size_nm
    return replace(spec, frame=Frame(shape or spec.shape, (2 * z, y, x)))


def _plan(
    card: ModelCard,
    name: str,
    spec: VolumeSpec,
    ratio: int,
    contrast: Contrast,
    run: RunTable,
    *,
    seed: int,
) -> Plan:
    """The plan for sections as far apart as those of `spec`, and half as thick as that."""
    draws = card.is_stochastic and card.steps > 1
    run_file = RunFile(
        source=SourceTable(
            url="memory", contrast=contrast, section_thickness_nm=float(spec.frame.voxel_size_nm[0]) / 2
        ),
        output=OutputTable(url="memory", arrays=("em", "sample") if draws else ("em",)),
        model=ModelTable(name=name, ratio=ratio, seed=seed),
        run=run,
    )
    return make_plan(run_file, spec, card)
