"""Benchmark models against ground truth: a table for each ratio and each way of making sections.

Rows are kept in a folder as soon as they are there, so that a comparison that was stopped resumes where it
was. A row is known by what it was made from: the truth's voxels, the sections, the model's weights and how
it was driven; a row of something else is never taken for it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from vemdiffuse_pipe.comparison.file import ComparisonFile, Draws, MethodTable, TruthTable
from vemdiffuse_pipe.comparison.in_memory import Rendered, plan_in_memory, reconstruct_in_memory
from vemdiffuse_pipe.comparison.rows import Figures, RowFolder
from vemdiffuse_pipe.config import Json, ModelTable, PlaneThickness
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation.degradation import Degradation, Degraded, degrade
from vemdiffuse_pipe.evaluation.report import evaluate
from vemdiffuse_pipe.evaluation.structure import WIDTH
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.volume import Voxels

EVALUATION_VERSION = 1  # raised whenever the same voxels would give other figures
MAX_VOXELS = 10**8  # of the truth's part: it and its reconstructions are held in memory
TRUTH = "truth"


@dataclass(frozen=True, slots=True)
class ComparedTable:
    """The figures of every method at one ratio, of sections made in one way."""

    degradation: Degradation
    """How sections were made of the truth."""
    ratio: int
    rows: dict[str, Figures]
    """By name. The first is the truth compared with itself, for the cutoffs and lines that it has."""
    theories: tuple[Theory, ...]


@dataclass(frozen=True, slots=True)
class Theory:
    """The mean of K independent samples beside the theory of perfect ones, 1 + 1 / K.

    Samples that are drawn from the posterior have an error of (1 + 1 / K) times that of the best estimate,
    so their mean lies 10 log10(1 + 1 / K) dB below it. The one-pass reference stands for the best estimate.
    """

    method: str
    samples: int
    """K."""
    psnr: float
    """Measured, dB."""
    expected: float
    """By the theory, dB."""


@dataclass(frozen=True, slots=True)
class _Draw:
    """Rows that are drawn together: `counts` samples of one method, by name of the row."""

    method: MethodTable
    draws: Draws
    counts: dict[str, int]
    plan: Plan


def compare(
    file: ComparisonFile,
    *,
    ratios: Sequence[int] | None = None,
    degradations: Sequence[Degradation] | None = None,
    on_row: Callable[[str], None] = lambda row: None,
) -> list[ComparedTable]:
    """The tables of a comparison; `ratios` and `degradations`: those of the file, unless stated.

    Everything is checked before anything is rendered. `on_row` is given each row as it is kept. Raises
    InputError where the truth, the models and the ratios do not fit together.

    Example:

        >>> from pathlib import Path
        >>> from vemdiffuse_pipe import compare, load_comparison
        >>> table, = compare(load_comparison(Path("compare.toml")))
        >>> table.ratio, list(table.rows)
        (5, ['truth', 'linear', 'cubic'])
    """
    volume = read_truth(file.truth)
    tables = list(product(degradations or file.compare.degradations, ratios or file.compare.ratios))
    for degradation, ratio in tables:
        list(_draws(file, degrade(volume, ratio, degradation)))
    folder = RowFolder(file.compare.results)
    return [_table(file, volume, degradation, ratio, folder, on_row) for degradation, ratio in tables]


def read_truth(table: TruthTable) -> Voxels:
    """The part of the truth that counts: uint8, zyx. Raises ConfigError, SourceError."""
    source = open_source(table.url, voxel_size_nm=table.voxel_size_nm, level=table.level, window=table.window)
    (first, stop), (n_z, *sides) = table.planes, source.spec.shape
    if stop > n_z:
        raise ConfigError(
            f"truth.planes = [{first}, {stop}]: {table.url} has {n_z} planes; choose among those"
        )
    y, x = (min(n, table.middle_px) for n in sides)
    shape = (stop - first, y, x)
    if min(shape) < WIDTH or math.prod(shape) > MAX_VOXELS:
        raise ConfigError(
            f"the truth's part is {shape[0]} x {y} x {x} voxels; {WIDTH} or more along each axis and at most "
            f"{MAX_VOXELS:.0e} in all are needed: change planes or middle_px in [truth]"
        )
    return source.read(Box.of_shape(shape, (first, (sides[0] - y) // 2, (sides[1] - x) // 2)))


def _table(
    file: ComparisonFile,
    volume: Voxels,
    degradation: Degradation,
    ratio: int,
    folder: RowFolder,
    on_row: Callable[[str], None],
) -> ComparedTable:
    degraded = degrade(volume, ratio, degradation)
    truth_key = _key(degraded, {"row": TRUTH})
    if truth_key not in folder:
        report = evaluate(degraded.truth, degraded.truth, planes=degraded.generated)
        folder.keep(truth_key, TRUTH, Figures(report))
    rows = {TRUTH: folder[truth_key]}
    draws = list(_draws(file, degraded))
    for draw in draws:
        keys = {row: _key(degraded, _identity(draw, k)) for row, k in draw.counts.items()}
        missing = {row: k for row, k in draw.counts.items() if keys[row] not in folder}
        for row, figures in _drawn(draw, missing, degraded, file):
            folder.keep(keys[row], row, figures)
            on_row(f"{degradation}, r = {ratio}: {row}")
        rows |= {row: folder[key] for row, key in keys.items()}
    return ComparedTable(degradation, ratio, rows, tuple(_theories(draws, rows)))


def _draws(file: ComparisonFile, degraded: Degraded) -> Iterator[_Draw]:
    """What is to be drawn of every method. Raises InputError for a model that cannot."""
    for method in file.method:
        if method.ratios is not None and degraded.r not in method.ratios:
            continue
        plan = plan_in_memory(
            degraded.sections,
            _model_table(method, degraded, samples=1, seed=0),
            file.run,
            pixel_nm=file.truth.pixel_nm,
            section_planes=degraded.section_planes,
        )
        if not plan.card.is_stochastic and max(method.samples) > 1:
            raise ConfigError(f"method {method.name}: {method.model} draws no samples; leave samples out")
        if plan.card.has_estimate:
            rows = {method.name: 0} | ({_row(method, 1): 1} if plan.card.is_stochastic else {})
            yield _Draw(method, "independent", rows, plan)
            continue
        if not plan.card.is_stochastic or plan.sampling.steps == 1:
            yield _Draw(method, "independent", {method.name: 1}, plan)
            continue
        if "independent" in method.draws or 1 in method.samples:
            counts = [k for k in method.samples if k == 1 or "independent" in method.draws]
            yield _Draw(method, "independent", {_row(method, k): k for k in counts}, plan)
        if "pairs" in method.draws:
            for k in (k for k in method.samples if k > 1):
                yield _Draw(method, "pairs", {f"{_row(method, k)} in pairs": k}, plan)


def _row(method: MethodTable, k: int) -> str:
    return f"{method.name}, one sample" if k == 1 else f"{method.name}, mean of {k}"


def _drawn(
    draw: _Draw, missing: dict[str, int], degraded: Degraded, file: ComparisonFile
) -> Iterator[tuple[str, Figures]]:
    """Figures of the rows that are missing, as they come.

    Pairs are drawn as a run draws them. Independent draws have seeds of their own, and rows with more
    samples go on from those with fewer.
    """

    def render(samples: int | None, seed: int) -> Rendered:
        is_stochastic = draw.plan.card.is_stochastic
        table = _model_table(draw.method, degraded, samples=samples if is_stochastic else None, seed=seed)
        return reconstruct_in_memory(
            degraded.sections,
            table,
            file.run,
            pixel_nm=file.truth.pixel_nm,
            section_planes=degraded.section_planes,
        )

    if draw.plan.card.has_estimate:
        for row, k in missing.items():
            one = render(k or None, draw.method.seed)
            yield row, _figures(one, one.arrays["sample" if k else "em"], degraded)
        return
    if draw.draws == "pairs":
        for row, k in missing.items():
            rendered = render(k, draw.method.seed)
            yield row, _figures(rendered, rendered.arrays["em"], degraded)
        return
    total, seconds, flop, peak = np.zeros(degraded.truth.shape), 0.0, 0.0, 0
    for n in range(1, max(missing.values(), default=0) + 1):
        sample = render(1, draw.method.seed + n - 1)
        total += sample.arrays["em"]
        seconds, flop, peak = seconds + sample.seconds, flop + sample.flop, max(peak, sample.peak_bytes)
        cost = Rendered(sample.arrays, seconds, flop, peak)
        for row in (row for row, k in missing.items() if k == n):
            yield row, _figures(cost, to_grey(total / n), degraded)


def _model_table(method: MethodTable, degraded: Degraded, *, samples: int | None, seed: int) -> ModelTable:
    """How the method is run: planes are as thick as those of the truth, where its model can choose."""
    is_thinner = degraded.is_thin and degraded.section_planes > 1
    can_choose = find_card(method.model).needs_sectioning
    planes: PlaneThickness = "thin" if is_thinner and can_choose else "section"
    return method.table(degraded.r, samples=samples, seed=seed, planes=planes)


def _figures(cost: Rendered, planes: Voxels, degraded: Degraded) -> Figures:
    return Figures(
        evaluate(planes, degraded.truth, planes=degraded.generated),
        flop_per_voxel=cost.flop / planes.size,
        voxels_per_s=planes.size / cost.seconds,
        peak_bytes=cost.peak_bytes,
    )


def _identity(draw: _Draw, k: int) -> dict[str, Json]:
    return {**draw.plan.identity(), "seed": draw.method.seed, "draws": draw.draws if k > 1 else "", "k": k}


def _key(degraded: Degraded, identity: dict[str, Json]) -> str:
    """Sixteen hexadecimal digits that stand for a row."""
    voxels = [hashlib.sha256(v.tobytes()).hexdigest() for v in (degraded.truth, degraded.sections)]
    return digest({**identity, "voxels": [*voxels], "r": degraded.r, "evaluation": EVALUATION_VERSION})


def _theories(draws: Sequence[_Draw], rows: dict[str, Figures]) -> Iterator[Theory]:
    """For each row of independent draws whose one-pass reference, the same weights with 1 step, has a row."""
    references = {d.plan.card.sha256: rows[d.method.name].report for d in draws if _is_one_pass(d)}
    for draw in draws:
        reference = references.get(draw.plan.card.sha256)
        if reference is None or _is_one_pass(draw) or draw.draws == "pairs":
            continue
        for row, k in draw.counts.items():
            if k == 0:  # an estimate, without samples
                continue
            expected = reference.psnr - 10 * math.log10(1 + 1 / k)
            yield Theory(draw.method.name, k, rows[row].report.psnr, expected)


def _is_one_pass(draw: _Draw) -> bool:
    return draw.plan.card.is_stochastic and draw.plan.sampling.steps == 1
