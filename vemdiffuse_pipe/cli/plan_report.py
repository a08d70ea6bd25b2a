"""A plan as people and as machines read it."""

from __future__ import annotations

from math import prod

from vemdiffuse_pipe.cli.format import show_bytes, show_count, show_shape
from vemdiffuse_pipe.cli.options import print_json, print_table
from vemdiffuse_pipe.cli.price_report import price_rows
from vemdiffuse_pipe.cluster.resources import estimate_here, threads_per_worker
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.geometry.lattice import CoreLattice
from vemdiffuse_pipe.plan.assumed import ASSUMED
from vemdiffuse_pipe.plan.estimate import Estimate
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.plan.text import task_text
from vemdiffuse_pipe.pricing.plan_price import Price


def print_plan(plan: Plan, price: Price | None, *, as_json: bool) -> None:
    """Print the plan, its costs, and its price if it is known."""
    figures = estimate_here(plan)
    if as_json:
        print_json(plan_facts(plan, figures, price))
    else:
        print_table(plan_rows(plan, figures, price))


def plan_facts(plan: Plan, figures: Estimate, price: Price | None) -> dict[str, object]:
    """The plan for machines: lengths in nm, zyx."""
    facts: dict[str, object] = {
        "source": {
            "url": plan.source.url,
            "format": plan.source.format,
            "level": plan.source.level,
            "shape": plan.source.shape,
            "dtype": plan.source.dtype,
            "voxel_size_nm": [float(v) for v in plan.source.frame.voxel_size_nm],
        },
        "output": {
            "url": plan.run_file.output.url,
            "format": plan.run_file.output.format,
            "arrays": plan.arrays,
            "shape": plan.output.shape,
            "voxel_size_nm": [float(v) for v in plan.output.voxel_size_nm],
            "chunk_shape": plan.chunk_shape,
            "shard_shape": plan.shard_shape,
            "block_shape": plan.blocks.block_shape,
            "region": [plan.part.start, plan.part.stop],
        },
        "task": plan.card.task,
        "ratio": plan.ratio_in_json,
        "anisotropy": plan.anisotropy,
        "identity": plan.identity(),
        "estimate": figures.as_dict(),
    }
    if price is not None:
        facts["price"] = price.as_dict()
        facts["seconds"] = price.wall_s
    return facts


def plan_rows(plan: Plan, figures: Estimate, price: Price | None) -> dict[str, str]:
    """The plan for people, as rows of a table."""
    mask = plan.run_file.mask
    rows = {
        "source": _source(plan, figures),
        "output": _output(plan, figures),
        **({"region": _region(plan)} if plan.is_part else {}),
        **(
            {"mask": f"{mask.url}: shards outside are skipped; these figures still count them"}
            if mask
            else {}
        ),
        "ratio" if plan.card.task == "isotropic" else "task": task_text(plan),
        "model": _model(plan),
        "tiles": _tiles(plan, figures),
        "blocks": _blocks(plan, figures),
        "reads": _reads(figures),
        "memory": _memory(plan, figures),
        "work": f"{show_count(figures.flop_per_voxel)} FLOP a voxel, {figures.flop:.3g} in all",
    }
    return {**rows, **(price_rows(price) if price is not None else {})}


def _source(plan: Plan, figures: Estimate) -> str:
    source = plan.source
    found = "as assumed, not opened" if source.format == ASSUMED else f"{source.format}, level {source.level}"
    return (
        f"{source.url} ({found})\n{show_shape(source.shape)} voxels of "
        f"{show_nm(source.frame.voxel_size_nm)} nm, {source.dtype}, {show_bytes(figures.source_bytes)}"
    )


def _output(plan: Plan, figures: Estimate) -> str:
    table = plan.run_file.output
    return (
        f"{table.url} ({table.format}: {', '.join(plan.arrays)})\n"
        f"{show_shape(plan.output.shape)} voxels of {show_nm(plan.output.voxel_size_nm)} nm, uint8, "
        f"{show_bytes(figures.output_bytes)} before compression"
    )


def _region(plan: Plan) -> str:
    share = plan.part.n_voxels / prod(plan.whole_shape)
    return f"{plan.part} of the output of the whole volume, {share:.3g} of it: its voxels, at its place"


def _reads(figures: Estimate) -> str:
    times = figures.read_bytes / figures.source_bytes
    return f"{show_bytes(figures.read_bytes)} with halos, {times:.2f} times the source"


def _model(plan: Plan) -> str:
    sampling = plan.sampling
    told = _thickness(plan) if plan.card.needs_sectioning else ""
    if not sampling.samples:
        return f"{plan.card.name}: an estimate and its spread in one pass, {sampling.precision}{told}"
    if not plan.card.is_stochastic:
        return plan.card.name
    estimate = "an estimate, " if plan.card.has_estimate else ""
    sampler = f" by {sampling.sampler}" if sampling.sampler != plan.card.sampler else ""
    return (
        f"{plan.card.name}: {estimate}{show_count(sampling.samples)} sample{'s' * (sampling.samples > 1)}, "
        f"{sampling.steps} evaluations{sampler}, seed {sampling.seed}, {sampling.precision}{told}"
    )


def _thickness(plan: Plan) -> str:
    _, _, section_nm, plane_nm = plan.sectioning_nm
    same = "as sections" if plane_nm == section_nm else f"{plane_nm:.4g} nm"
    return f"\nsections {section_nm:.4g} nm thick, planes {same}"


def _tiles(plan: Plan, figures: Estimate) -> str:
    lattice = plan.lattice
    y, x = lattice.tile_px
    how = (
        f"of {lattice.core_px} px with a halo of {lattice.halo_px}, {y} x {x} px at most"
        if isinstance(lattice, CoreLattice)
        else f"of {y} x {x} px, {lattice.identity['overlap_px']} px shared"
    )
    return (
        f"{show_count(lattice.n_tiles)} a plane, {how}\n"
        f"{show_count(figures.n_tiles_rendered)} renders; {figures.renders_per_voxel:.2f} renders per voxel"
    )


def _blocks(plan: Plan, figures: Estimate) -> str:
    workers = plan.run_file.run.workers
    return (
        f"{show_count(figures.n_blocks)} of {show_shape(plan.blocks.block_shape)} voxels, "
        f"{show_count(workers)} x {threads_per_worker(plan.run_file.run, plan.run_file.cluster)} threads\n"
        f"{show_count(figures.n_shards)} shards of {show_shape(plan.shard_shape)}, "
        f"chunks of {show_shape(plan.chunk_shape)}"
    )


def _memory(plan: Plan, figures: Estimate) -> str:
    gpu = f", {show_bytes(figures.gpu_bytes)} of GPU memory on a GPU" if figures.gpu_bytes else ""
    return f"at most {show_bytes(figures.ram_bytes)} of RAM a worker{gpu}"
