"""vemdiffuse init: a run file to start from, with what was found filled in."""

from __future__ import annotations

from fractions import Fraction

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.format import show_ratio, show_shape
from vemdiffuse_pipe.cli.options import SourceChoice, source_options
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.plan.planes import choose_ratio, exact_ratio
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.volume import VolumeSpec

HEAD = """\
# A run file of vemdiffuse: `vemdiffuse plan FILE` says what it would do, `vemdiffuse run FILE` does it, and
# rerun it to resume. Order is z, y, x; lengths are nanometres. Keys after a # show what else there is.
"""

OPEN_KEYS = {
    "source": """\
# section_thickness_nm = 40.0  # what a section averages: as cut in TEM, electron depth in SBEM
# level = "0"  # the finest if left out
# channel = 0  # where the volume has more than one
# series = 0  # image of a TIFF file that has more than one
# pattern = "s_{z}_ch0.tif"  # names of a folder's sections, {z} their number, * anything
# window = [0, 65535]  # intensity window, mapped to 0-255: for any type but uint8
# contrast = [128.0, 30.0]  # mean and deviation of the grey levels; measured if left out
# nan = "fill"  # voxels that are not numbers are black
# missing = "fill"  # an absent chunk is filled; "bridge" skips its sections, "fail" fails its block
# corrupt = "bridge"  # the same for a chunk that cannot be decoded
# bad_sections = "bridge"  # black, constant or duplicated ones that are found; "keep" does not look for them
# rejected_sections = [7]  # bad sections, from 0: bridged by a wider gap
# assume = { shape = [9, 99, 99], voxel_size_nm = [40.0, 8.0, 8.0], chunk_shape = [1, 99, 99] }  # offline
# region = [[10, 0, 0], [20, 512, 512]]  # first and stop, in voxels of the source: only this part is made
# region_nm = [[400.0, 0.0, 0.0], [800.0, 4096.0, 4096.0]]  # the same in its world, widened to whole sections
""",
    "output": """\
# arrays = ["em", "uncertainty", "sample"]  # best estimate, its deviation, one coherent draw with texture
# format = "precomputed"  # or "n5", "ome-zarr-0.4"; "ome-zarr-0.5" has shards
# chunk_shape = [64, 64, 64]
# shard_shape = [64, 512, 512]
# pyramid = true  # coarser levels, made once all blocks are done, so that viewers show the whole volume
""",
    "model": """\
# candidates = ["linear", "default"]  # with name = "auto": the best of these by a self-test of the volume
# task = "denoise"  # each section by itself, with a model made for it; "superres" doubles y and x
# grid = "exact"  # without ratio: planes as far apart as pixels, whatever dz / dxy is; few sections are kept
# plane_thickness = "thin"  # deconvolved; "section": as thick as sections, as they would have been cut there
# sections = "estimate"  # planes at sections are estimated too; "keep" leaves them bit for bit
# samples = 4  # draws: with the default written as sample and sample_spread, of diffusion networks averaged
# sampler = "heun"  # or "dpmpp-2m", "ancestral", "ancestral-rescaled": as the model recommends if left out
# steps = 8  # evaluations of the network for a sample
# precision = "float32"  # or "bfloat16"; "auto", the default: bfloat16 on a GPU, float32 on a CPU
# core_px = 1024  # what a tile adds to the plane, for networks that are exact: larger is faster on a GPU
# tile_px = 256  # tiles that are blended instead
# overlap_px = 32
""",
    "run": """\
# Nothing here changes a voxel.
# block_shape = [64, 1024, 1024]  # whole shards; smaller needs less memory
# workers = 2
# engine = "local"  # worker processes; "threads" works inside this one; or "slurm", "lsf", "pbs", "sge"
# threads = 2  # tiles rendered at once by a worker
# tile_batch = 1  # tiles in one call of the network; "auto", the default: what the GPU has room for
# capture = "off"  # or "graphs", "compile": how a GPU is given the network; "auto", the default: compile
# device = "cuda"  # or "cpu"; "auto", the default: CUDA where there is a GPU
# max_memory_gb = 8
# dashboard = true  # dask's, for whoever is on this machine; needs bokeh
""",
    "price": """\
# What the place where it will run charges, for `vemdiffuse plan FILE --price`; nothing here changes a voxel.
# gpu_hour = 2.5
# core_hour = 0.04
# storage_gb_month = 0.023
# egress_gb = 0.0
# requests_million = 0.4
# currency = "USD"
# tflops = 100.0  # of one GPU at this work, in place of a measurement: for --offline
# max_gpu_hours = 1000.0  # more is refused: by `plan --price`, with tflops by `run` and `submit` too
# max_core_hours = 1000.0  # of CPUs: by `plan --price`
""",
}

TIE = ', a tie: set ratio to one of the two, or grid = "exact" in its place'

TAIL = """\
# [mask]  # a volume of any type and resolution: where it is 0 nothing is read, rendered or written
# url = "tissue.zarr"
# level = "2"
# voxel_size_nm = [400.0, 64.0, 64.0]  # which level, or the size itself where the volume states none

# [cluster]  # what a batch job is given: for `vemdiffuse submit`, and for the engines slurm, lsf, pbs and sge
# queue = "gpu"
# account = "em"
# walltime = "04:00:00"
# memory_gb = 16.0
# gpus = 1
# cores = 4
# min_jobs = 1
# max_jobs = 64
# prologue = ["module load cuda"]  # lines of shell before Python
# extra_directives = ["--constraint=a100"]  # as they follow #SBATCH, #BSUB, #PBS or #$
# interface = "ib0"  # the network between nodes, where there are several
"""


@click.command("init")
@click.argument("source")
@click.argument("output")
@source_options
def command(
    source: str,
    output: str,
    choice: SourceChoice,
) -> None:
    """Print a run file for a volume, with comments.

    \b
    Examples:
      vemdiffuse init stack.tif isotropic.zarr --voxel-size 50 4.6 4.6 > run.toml
    """
    found = open_source(source, **choice).spec
    is_tie = exact_ratio(found.frame.voxel_size_nm) % 1 == Fraction(1, 2)
    run_file = config.parse(
        {
            "source": {
                "url": source,
                **choice,
                "voxel_size_nm": [float(v) for v in found.frame.voxel_size_nm],
            },
            "output": {"url": output},
            "model": {"ratio": None if is_tie else choose_ratio(found.frame, None)},
        }
    )
    click.echo(commented(run_file, found), nl=False)


def commented(run_file: RunFile, found: VolumeSpec) -> str:
    """The run file as TOML, with what was found and with the keys that were left open as comments."""
    ratio = show_ratio(found.frame.voxel_size_nm)
    facts = {
        "source": f"# found: {found.format}, level {found.level} of {found.n_levels}, {found.dtype}, "
        f"{show_shape(found.shape)} voxels of {show_nm(found.frame.voxel_size_nm)} nm\n",
        "model": f"# {ratio}{'' if run_file.model.ratio else TIE}\n",
    }
    tables = config.dump(run_file).rstrip("\n").split("\n\n")
    return "\n".join([HEAD, *(_table(run_file, lines.splitlines(), facts) for lines in tables), TAIL])


def _table(run_file: RunFile, lines: list[str], facts: dict[str, str]) -> str:
    """One table: the keys that are set, what was found, and the other keys as comments."""
    heading, *keys = lines
    name = heading.strip("[]")
    given = getattr(run_file, name).model_dump(exclude_defaults=True)
    comments = {line[2:].split(" =")[0]: line for line in OPEN_KEYS[name].splitlines()}
    shown = [line for line in keys if (key := line.split(" =")[0]) in given or key not in comments]
    others = [line for key, line in comments.items() if key not in given]
    return "\n".join([heading, *shown, *facts.get(name, "").splitlines(), *others, ""])
