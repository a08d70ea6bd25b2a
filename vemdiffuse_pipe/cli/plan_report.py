"""A plan as people and as machines read it."""

from __future__ import annotations

from vemdiffuse_pipe.cli.options import print_json, print_table
from vemdiffuse_pipe.cli.words import show_bytes, show_count, show_duration, show_shape, task_in_words
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.plan.estimate import Estimate
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.running.resources import estimate_here, refuse_what_does_not_fit, threads_per_worker


def print_plan(plan: Plan, *, with_time: bool, as_json: bool) -> None:
    """Print the plan and its costs. Raises PlanError, after printing, for too little memory."""
    figures = estimate_here(plan)
    seconds = tile_seconds(plan) if with_time else None
    if as_json:
        print_json(plan_facts(plan, figures, seconds))
    else:
        print_table(plan_rows(plan, figures, seconds))
    refuse_what_does_not_fit(plan)


def tile_seconds(plan: Plan) -> float:
    """Seconds that one tile of one gap takes here. Torch is imported now and not before."""
    from vemdiffuse_pipe.render.timing import seconds_per_tile

    return seconds_per_tile(plan)


def run_seconds(plan: Plan, figures: Estimate, seconds_per_tile: float) -> float:
    """Seconds of rendering, all workers and threads busy."""
    return (
        seconds_per_tile
        * figures.n_tiles_rendered
        / (threads_per_worker(plan.run_file.run) * plan.run_file.run.workers)
    )


def plan_facts(plan: Plan, figures: Estimate, seconds: float | None) -> dict[str, object]:
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
        },
        "task": plan.card.task,
        "ratio": plan.gaps.r,
        "anisotropy": plan.anisotropy,
        "identity": plan.identity(),
        "estimate": figures.as_dict(),
    }
    if seconds is not None:
        facts["seconds_per_tile"] = seconds
        facts["seconds"] = run_seconds(plan, figures, seconds)
    return facts


def plan_rows(plan: Plan, figures: Estimate, seconds: float | None) -> dict[str, str]:
    """The plan for people, as rows of a table."""
    rows = {
        "source": _source(plan, figures),
        "output": _output(plan, figures),
        **task_in_words(plan),
        "model": _model(plan),
        "tiles": _tiles(plan, figures),
        "blocks": _blocks(plan, figures),
        "reads": _reads(figures),
        "memory": _memory(plan, figures),
        "work": f"{show_count(figures.flop_per_voxel)} FLOP a voxel, {figures.flop:.3g} in all",
    }
    if seconds is not None:
        rows["time"] = _time(plan, figures, seconds)
    return rows


def _source(plan: Plan, figures: Estimate) -> str:
    source = plan.source
    return (
        f"{source.url} ({source.format}, level {source.level})\n{show_shape(source.shape)} voxels of "
        f"{show_nm(source.frame.voxel_size_nm)} nm, {source.dtype}, {show_bytes(figures.source_bytes)}"
    )


def _output(plan: Plan, figures: Estimate) -> str:
    table = plan.run_file.output
    return (
        f"{table.url} ({table.format}: {', '.join(plan.arrays)})\n"
        f"{show_shape(plan.output.shape)} voxels of {show_nm(plan.output.voxel_size_nm)} nm, uint8, "
        f"{show_bytes(figures.output_bytes)} before compression"
    )


def _reads(figures: Estimate) -> str:
    times = figures.read_bytes / figures.source_bytes
    return f"{show_bytes(figures.read_bytes)} with halos, {times:.2f} times the source"


def _model(plan: Plan) -> str:
    sampling = plan.sampling
    if not plan.card.is_stochastic:
        return plan.card.name
    return (
        f"{plan.card.name}: {sampling.samples} samples, {sampling.steps} evaluations, seed {sampling.seed}, "
        f"{sampling.precision}"
    )


def _tiles(plan: Plan, figures: Estimate) -> str:
    lattice = plan.lattice
    y, x = lattice.tile_px
    return (
        f"{show_count(lattice.n_tiles)} a plane, of {y} x {x} px, {lattice.overlap_px} px shared\n"
        f"{show_count(figures.n_tiles_rendered)} renderings; {figures.rendered_twice:.1%} of the voxels twice"
    )


def _blocks(plan: Plan, figures: Estimate) -> str:
    workers = plan.run_file.run.workers
    return (
        f"{show_count(figures.n_blocks)} of {show_shape(plan.blocks.block_shape)} voxels, "
        f"{show_count(workers)} x {threads_per_worker(plan.run_file.run)} threads\n"
        f"{show_count(figures.n_shards)} shards of {show_shape(plan.shard_shape)}, "
        f"chunks of {show_shape(plan.chunk_shape)}"
    )


def _memory(plan: Plan, figures: Estimate) -> str:
    gpu = f", {show_bytes(figures.gpu_bytes)} of GPU memory on a GPU" if figures.gpu_bytes else ""
    return f"at most {show_bytes(figures.ram_bytes)} of RAM a worker{gpu}"


def _time(plan: Plan, figures: Estimate, seconds: float) -> str:
    total = show_duration(run_seconds(plan, figures, seconds))
    return f"about {total} of rendering: one tile takes {seconds:.2g} s on {plan.run_file.run.device}"
