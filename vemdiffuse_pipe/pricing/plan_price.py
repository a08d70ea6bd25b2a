"""What a run will cost where it will be: time, bytes, requests and cost, and what would save cost.

Reading, rendering and writing overlap: a worker takes as long as the slowest of them. On a GPU that is
rendering or reading; on a CPU decoding what is read takes time from rendering.

    GPU      read    ======            ======            CPU     decoding  ==      ==
             render  ============      ============              render      ======  ======
             a block |<-------->|                                a block   |<---->|
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from vemdiffuse_pipe.config import PriceTable, RunFile
from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.geometry.lattice import CoreLattice
from vemdiffuse_pipe.models.card import BUILTIN, ModelCard
from vemdiffuse_pipe.plan.estimate import Estimate, estimate
from vemdiffuse_pipe.plan.plan import Plan, make_plan

BFLOAT16 = 1.8  # times faster than float32: 0.55 of the time on CPUs (benchmarks/README.md, 2026-11-21)
SMALL_PART = 0.1
MIN_FACTOR = 1.05  # what helps less is not listed


@dataclass(frozen=True, slots=True)
class Speed:
    """What one worker did of the work, and how long it took: measured, or stated where `read_bytes` is 0.

    `flop`: rendered in `render_s`. `read_bytes`: needed, read in `read_s`, of which the process was busy
    for `read_cpu_s`. `encoded_share`: bytes fetched over what they decode to. `is_gpu`: on what. `origin`:
    where this comes from, in words.
    """

    flop: float
    render_s: float
    is_gpu: bool
    origin: str
    read_bytes: int = 0
    read_s: float = 0.0
    read_cpu_s: float = 0.0
    encoded_share: float = 1.0


def stated_speed(table: PriceTable) -> Speed:
    """One GPU as the run file has it, reading at no cost. Raises PlanError where it says nothing."""
    if table.tflops is None:
        raise PlanError(
            "a price without measuring a block needs to be told what one GPU does: [price] tflops, in 1e12 "
            "operations a second"
        )
    origin = f"at {table.tflops:g} TFLOP/s of one GPU, as the run file says"
    return Speed(flop=table.tflops * 1e12, render_s=1.0, is_gpu=True, origin=origin)


@dataclass(frozen=True, slots=True)
class Saving:
    """A change, and by how much it divides the hours. `is_same_volume`: False where voxels change by it."""

    change: str
    factor: float
    is_same_volume: bool


@dataclass(frozen=True, slots=True)
class Price:
    """What a run costs. `unit_hours`: of GPUs where `unit` is "GPU", of CPU cores where it is "core".

    `origin`: where the speed comes from. `costs`: in `currency`, of what has a price in the run file;
    `storage_a_month` goes on after the run and is no part of `total`. `bytes_in`: as they are stored, where
    a block was read, else before compression: `encoded_share` is 1 then. Bytes out are before compression, an
    upper bound, and so is what is stored.
    """

    origin: str
    unit: str
    unit_hours: float
    wall_s: float
    n_workers: int
    is_bound_by: str
    bytes_in: float
    encoded_share: float
    bytes_out: float
    n_reads: float
    n_puts: float
    currency: str
    costs: Mapping[str, float]
    savings: tuple[Saving, ...]

    @property
    def total(self) -> float:
        """Money until the run ends, of what has a price."""
        return sum(amount for name, amount in self.costs.items() if name != "storage_a_month")

    def as_dict(self) -> dict[str, object]:
        """The figures by name."""
        return {**asdict(self), "total": self.total}


def price(plan: Plan, speed: Speed, *, n_workers: int, n_threads: int, wanted_share: float = 1.0) -> Price:
    """The price of `plan` at `speed` on `n_workers`, each with one GPU or `n_threads` cores.

    `wanted_share`: of the output's voxels, what a mask leaves. Pure arithmetic.
    """
    figures = estimate(plan, n_threads=n_threads)
    stages = _stages(figures, speed, n_threads)
    worker_s = max(stages.values()) * wanted_share
    hours = worker_s / 3600 * (1 if speed.is_gpu else n_threads)
    bytes_in = figures.chunk_read_bytes * speed.encoded_share * wanted_share
    n_reads, n_puts = (n * wanted_share for n in (figures.n_chunk_reads, figures.n_shards * len(plan.arrays)))
    table, n_busy = plan.run_file.price, min(n_workers, figures.n_blocks)
    quantities = {
        "compute": (hours, table.gpu_hour if speed.is_gpu else table.core_hour),
        "egress": (bytes_in / 1e9, table.egress_gb),
        "requests": ((n_reads + n_puts) / 1e6, table.requests_million),
        "storage_a_month": (figures.output_bytes * wanted_share / 1e9, table.storage_gb_month),
    }
    return Price(
        origin=speed.origin,
        unit="GPU" if speed.is_gpu else "core",
        unit_hours=hours,
        wall_s=worker_s / n_busy,
        n_workers=n_busy,
        is_bound_by=max(stages, key=lambda name: stages[name]),
        bytes_in=bytes_in,
        encoded_share=speed.encoded_share,
        bytes_out=figures.output_bytes * wanted_share,
        n_reads=n_reads,
        n_puts=n_puts,
        currency=table.currency,
        costs={name: amount * unit for name, (amount, unit) in quantities.items() if unit is not None},
        savings=savings(plan, figures, speed, n_threads),
    )


def check_limit(found: Price, table: PriceTable) -> None:
    """Raises PlanError where the run would take more than the run file allows, saying what would help."""
    name = f"max_{found.unit.lower()}_hours"
    limit = table.max_gpu_hours if found.unit == "GPU" else table.max_core_hours
    if limit is None or found.unit_hours <= limit:
        return
    needed = found.unit_hours / limit
    enough = [saving.change for saving in found.savings if saving.factor >= needed][-2:]
    part = f"a region or a mask of {100 / needed:.2g} % of it"
    raise PlanError(
        f"the run would take {found.unit_hours:,.4g} {found.unit}-hours; {name} is {limit:,.4g}: it must be "
        f"{needed:.3g} times shorter; any of these would do: {', '.join([*enough, part])}"
    )


def savings(plan: Plan, figures: Estimate, speed: Speed, n_threads: int) -> tuple[Saving, ...]:
    """Changes that would save cost, the largest saving first."""
    now = max(_stages(figures, speed, n_threads).values())
    found = [Saving(f"a region or a mask of {SMALL_PART:.0%} of it", 1 / SMALL_PART, is_same_volume=True)]
    if plan.card.is_stochastic and plan.sampling.precision == "float32":
        faster = min(BFLOAT16, now / max(_stages(figures, speed, n_threads)["reading"], now / BFLOAT16))
        found.append(Saving("precision = bfloat16, about", faster, is_same_volume=False))
    for change, run_file, card, is_same in _variants(plan):
        try:
            other = estimate(make_plan(run_file, plan.source, card), n_threads=n_threads)
        except PlanError:
            continue  # there is no such run
        then = max(_stages(other, speed, n_threads).values())
        found.append(Saving(change, now / then, is_same))
    useful = (saving for saving in found if saving.factor >= MIN_FACTOR)
    return tuple(sorted(useful, key=lambda saving: -saving.factor))


def _stages(figures: Estimate, speed: Speed, n_threads: int) -> dict[str, float]:
    """Seconds of one worker, by what it may be bound by."""
    parts = figures.read_bytes / speed.read_bytes if speed.read_bytes else 0.0
    rendering = speed.render_s * figures.flop / speed.flop
    decoding = 0.0 if speed.is_gpu else parts * speed.read_cpu_s / n_threads
    return {"rendering": rendering + decoding, "reading": parts * speed.read_s}


def _variants(plan: Plan) -> Iterator[tuple[str, RunFile, ModelCard, bool]]:
    """Changes: in words, the run file with it, the model, and whether the volume stays the same."""
    table, sampling, card = plan.run_file.model, plan.sampling, plan.card
    if card.is_stochastic:
        n_steps, larger = max(1, sampling.steps // 2), _larger_tiles(plan)
        changed: dict[str, dict[str, object]] = {
            "samples = 1": {"samples": 1},
            f"steps = {n_steps}": {"steps": n_steps},
            **{f"{key} = {value}": {key: value} for key, value in larger.items()},
        }
        for change, update in changed.items():
            model = table.model_copy(update=update)
            yield change, plan.run_file.model_copy(update={"model": model}), card, False
        preview = next(iter(BUILTIN[card.task].values()))
        yield f"model {preview.name}, a preview", _with_model(plan.run_file, preview.name), preview, False
    z, y, x = plan.blocks.block_shape
    run = plan.run_file.run.model_copy(update={"block_shape": (z, 2 * y, 2 * x)})
    change = f"block_shape = {[z, 2 * y, 2 * x]}"
    yield change, plan.run_file.model_copy(update={"run": run}), card, True


def _larger_tiles(plan: Plan) -> dict[str, object]:
    """What makes tiles twice as long: a key of [model] and its value."""
    lattice = plan.lattice
    if isinstance(lattice, CoreLattice):
        return {"core_px": 2 * lattice.core_px}
    return {"tile_px": 2 * max(lattice.tile_px)}


def _with_model(run_file: RunFile, name: str) -> RunFile:
    changed: dict[str, object] = {"name": name, "samples": None, "steps": None}
    return run_file.model_copy(update={"model": run_file.model.model_copy(update=changed)})
