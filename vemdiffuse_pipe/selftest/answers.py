"""What a model makes of a place: the section that was left out, as best estimate and as one sample.

The section lies in the middle of a gap of 2 r planes between its neighbours, rendered as a run renders it. A
network that fills no gap as wide is asked for fewer planes between the same sections: the middle stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vemdiffuse_pipe.cluster.resources import threads_per_worker
from vemdiffuse_pipe.config import ModelTable, OutputTable, RunFile, RunTable, SourceTable
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.models.card import ModelCard, find_card
from vemdiffuse_pipe.models.protocol import Model
from vemdiffuse_pipe.output.preparation import open_run_model
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.render.block import Hardware, render_block
from vemdiffuse_pipe.selftest.places import Place
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

Contrast = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """The section that was left out, made: (y, x) uint8. `sample`: None where the model draws none."""

    estimate: Voxels
    sample: Voxels | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to be tested, its weights loaded. `ratio`: of the gaps that it is tested on, an even number.

    `has_samples`: False where it draws none.
    """

    name: str
    card: ModelCard
    model: Model
    ratio: int
    has_samples: bool
    run: RunTable


def load_candidate(name: str, spec: VolumeSpec, r: int, contrast: Contrast, device: str = "cpu") -> Candidate:
    """The model that `name` means, for a volume whose gaps are r wide.

    Raises ModelError, and ConfigError for one that makes no plane in the middle of a doubled gap.
    """
    card, run = find_card(name), RunTable(device=device)
    ratio = doubled_ratio(card, r)
    plan = _plan(name, spec, ratio, contrast, run, seed=0, samples=None)
    has_samples = card.is_stochastic and plan.sampling.steps > 1
    return Candidate(name, card, open_run_model(plan), ratio, has_samples, run)


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

    def middle(samples: int | None) -> Voxels:
        plan = _plan(
            candidate.name,
            _around(place, spec),
            candidate.ratio,
            contrast,
            candidate.run,
            seed=seed,
            samples=samples,
        )
        n_gaps, (_, y, x) = place.given.shape[0] - 1, plan.output.shape
        plane = n_gaps // 2 * candidate.ratio + candidate.ratio // 2
        box = Box((plane, 0, 0), (plane + 1, y, x))
        hardware = Hardware(candidate.run.device, threads_per_worker(candidate.run))
        sections = place.given[plan.source_box(box).slices]
        plane_of_em: Voxels = render_block(plan, candidate.model, sections, box, hardware)["em"][0]
        return plane_of_em

    return Answer(middle(None), middle(1) if candidate.has_samples else None)


def _around(place: Place, spec: VolumeSpec) -> VolumeSpec:
    """The sections given at a place as a volume: twice as far apart as those of `spec`."""
    z, y, x = spec.frame.voxel_size_nm
    n, rows, columns = place.given.shape
    return replace(spec, frame=Frame((n, rows, columns), (2 * z, y, x)))


def _plan(
    name: str,
    spec: VolumeSpec,
    ratio: int,
    contrast: Contrast,
    run: RunTable,
    *,
    seed: int,
    samples: int | None,
) -> Plan:
    run_file = RunFile(
        source=SourceTable(url="memory", contrast=contrast),
        output=OutputTable(url="memory"),
        model=ModelTable(name=name, ratio=ratio, seed=seed, samples=samples),
        run=run,
    )
    return make_plan(run_file, spec, find_card(name))
