"""What reading costs: each format beside bare tensorstore and zarr-python, halos, and a slow network.

    python benchmarks/reading.py [formats] [decoded] [halos] [latency] [--repeats 5]

formats    128 x 1024 x 1024 voxels in boxes of 64 x 512 x 512, the same bytes through three libraries;
           tensorstore has as large a cache of chunks as we have, which costs it up to a tenth
decoded    the same for codecs that tensorstore lacks, beside zarr-python alone
halos      bytes fetched over bytes needed, on 64 x 64 x 64 chunks like those of MICrONS, blocks of 1024 px
latency    30 ms more a request: a run through a proxy on loopback, rendering as slow as reading

Ratios are of the best of the repeats, taken in turn. The servers and the proxy are those of the tests.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import click
import numcodecs
import numpy as np
import tensorstore as ts
import zarr

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from copying import em_like
from faulty_proxy import FaultyProxy
from figures import commit, device
from servers import nginx

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.plan.plan import make_plan
from vemdiffuse_pipe.records.events import Event, PlanesDone
from vemdiffuse_pipe.records.shards import ShardSet, missing_work
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.storage.stores import traffic
from vemdiffuse_pipe.volume import CACHE_BYTES, Voxels

Row = tuple[str, ...]
SHAPE = (128, 1024, 1024)
BOXES = [Box.of_shape((64, 512, 512), s) for s in product((0, 64), (0, 512), (0, 512))]
NM = [40.0, 8.0, 8.0]
BLOSC = {"cname": "zstd", "clevel": 3, "shuffle": "noshuffle", "typesize": 1, "blocksize": 0}
LATENCY_S = 0.03
PARTS = ("formats", "decoded", "halos", "latency")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--repeats", default=5, show_default=True)
def main(parts: tuple[str, ...], repeats: int) -> None:
    """Print the tables of reading."""
    print(f"{device()}, {time.strftime('%Y-%m-%d')}, commit {commit()}")
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or PARTS:
            rows = {"formats": formats, "decoded": decoded, "halos": halos, "latency": latency}[part](
                Path(folder), repeats
            )
            head, *body = rows
            print(f"\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
            for row in body:
                print(f"| {' | '.join(row)} |")


def formats(folder: Path, repeats: int) -> Iterator[Row]:
    """Every format through us, through tensorstore and, where it can, through zarr-python."""
    yield "format", "open_source", "of bare tensorstore", "of zarr-python"
    voxels = em_like(SHAPE)
    for name, spec in specs(folder).items():
        write(spec, voxels)
        ways: dict[str, Callable[[], None]] = {
            "ours": partial(read_ours, spec),
            "ts": partial(read_bare, spec),
        }
        if spec["driver"] in ("zarr", "zarr3"):
            ways["zarr"] = partial(read_zarr, spec)
        best = interleaved(ways, repeats)
        rates = {way: voxels.size / 1e6 / s for way, s in best.items()}
        theirs = (
            f"{rates['ours'] / rates['zarr']:.2f} ({rates['zarr']:.0f})" if "zarr" in rates else "not read"
        )
        yield (
            name,
            f"{rates['ours']:.0f} MB/s",
            f"{rates['ours'] / rates['ts']:.2f} ({rates['ts']:.0f})",
            theirs,
        )


def decoded(folder: Path, repeats: int) -> Iterator[Row]:
    """Arrays of zarr 2 that zarr-python decodes for us, beside zarr-python alone."""
    yield "zarr v2", "open_source", "of zarr-python"
    voxels = em_like(SHAPE)
    blosc = numcodecs.Blosc("zstd", 3, 0)
    kinds: dict[str, dict[str, object]] = {
        "lz4": {"compressors": numcodecs.LZ4()},
        "delta, zlib": {"filters": [numcodecs.Delta("u1")], "compressors": numcodecs.Zlib(1)},
        "delta, blosc": {"filters": [numcodecs.Delta("u1")], "compressors": blosc},
    }
    for name, options in kinds.items():
        path = folder / name
        zarr.create_array(path, data=voxels, chunks=(64, 64, 64), zarr_format=2, **options)
        spec = {"driver": "zarr", "kvstore": {"path": str(path)}}
        best = interleaved({"ours": partial(read_ours, spec), "zarr": partial(read_zarr, spec)}, repeats)
        ours, theirs = (voxels.size / 1e6 / best[way] for way in ("ours", "zarr"))
        yield name, f"{ours:.0f} MB/s", f"{ours / theirs:.2f} ({theirs:.0f})"


def specs(folder: Path) -> dict[str, dict[str, object]]:
    """What tensorstore writes, by the name of the format."""

    def at(driver: str, name: str, **more: object) -> dict[str, object]:
        kvstore = {"driver": "file", "path": f"{folder}/{name}/"}
        return {"driver": driver, "kvstore": kvstore, "store_data_equal_to_fill_value": True, **more}

    chunk = [64, 64, 64]
    inner = [{"name": "bytes"}, {"name": "blosc", "configuration": BLOSC}]
    sharding = {"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": inner}}
    grid = {"name": "regular", "configuration": {"chunk_shape": [64, 512, 512]}}
    v3 = {"shape": SHAPE, "data_type": "uint8", "chunk_grid": grid, "codecs": [sharding]}
    v2 = {"shape": SHAPE, "dtype": "|u1", "chunks": chunk}
    v2 |= {"compressor": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 0}}
    n5 = {"dimensions": SHAPE[::-1], "dataType": "uint8", "blockSize": chunk}
    scale = {"size": SHAPE[::-1], "chunk_size": chunk, "resolution": NM[::-1], "key": "8"}
    multi = {"type": "image", "data_type": "uint8", "num_channels": 1}
    kind = "neuroglancer_precomputed"
    return {
        "zarr v2, blosc": at("zarr", "v2", metadata=v2),
        "zarr v3, sharded": at("zarr3", "v3", metadata=v3),
        "N5, gzip": at("n5", "gzip", metadata={**n5, "compression": {"type": "gzip"}}),
        "N5, blosc": at("n5", "blosc", metadata={**n5, "compression": blosc_of_n5()}),
        "precomputed, raw": at(
            kind, "raw", multiscale_metadata=multi, scale_metadata={**scale, "encoding": "raw"}
        ),
        "precomputed, jpeg": at(
            kind, "jpeg", multiscale_metadata=multi, scale_metadata={**scale, "encoding": "jpeg"}
        ),
    }


def blosc_of_n5() -> dict[str, object]:
    """Blosc as N5 states it."""
    return {"type": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 0, "blocksize": 0}


def is_reversed(spec: dict[str, object]) -> bool:
    """True where axes are stored x, y, z."""
    return spec["driver"] in ("n5", "neuroglancer_precomputed")


def write(spec: dict[str, object], voxels: Voxels) -> None:
    array = ts.open(spec, create=True, delete_existing=True).result()
    values = voxels.T if is_reversed(spec) else voxels
    array[...].write(values[..., None] if array.rank == 4 else values).result()


def path_of(spec: dict[str, object]) -> str:
    return str(spec["kvstore"]["path"])  # type: ignore[index]


def read_ours(spec: dict[str, object]) -> None:
    given = None if spec["driver"] == "neuroglancer_precomputed" else NM
    opened = open_source(path_of(spec), voxel_size_nm=given)
    for box in BOXES:
        opened.read(box)


def read_bare(spec: dict[str, object]) -> None:
    bare = {"driver": spec["driver"], "kvstore": spec["kvstore"], "recheck_cached_data": "open"}
    same_cache = ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})
    array = ts.open(bare, context=same_cache).result()
    view = array if array.rank == 3 else array[..., 0]
    view = view.T if is_reversed(spec) else view
    for box in BOXES:
        view[box.slices].read(order="C").result()


def read_zarr(spec: dict[str, object]) -> None:
    array = zarr.open_array(path_of(spec), mode="r")
    for box in BOXES:
        np.asarray(array[box.slices])


def interleaved(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Best seconds of each way, each going first in its turn."""
    best = dict.fromkeys(ways, float("inf"))
    names = list(ways)
    for i in range(repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begun = time.perf_counter()
            ways[name]()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


def halos(folder: Path, repeats: int) -> Iterator[Row]:
    """The reads of a run, in its order: what was fetched for what was needed, with the cache of a run."""
    yield "model", "blocks", "needed", "fetched", "fetched / needed", "in layers"
    shape = (192, 2176, 2176)
    spec = specs(folder)["precomputed, raw"]
    spec["kvstore"]["path"] = f"{folder}/microns/"  # type: ignore[index]
    spec["scale_metadata"]["size"] = shape[::-1]  # type: ignore[index]
    write(spec, em_like(shape))
    for model in ("linear", "default"):
        run_file = small_run(path_of(spec), f"{folder}/none", model)
        found = {columns: fetched(run_file, columns) for columns in (True, False)}
        needed, got, n_blocks = found[True]
        yield (
            model,
            str(n_blocks),
            f"{needed / 1e6:.0f} MB",
            f"{got / 1e6:.0f} MB",
            f"{got / needed:.2f}",
            f"{found[False][1] / needed:.2f}",
        )


def small_run(source: str, output: str, model: str) -> RunFile:
    return config.parse({"source": {"url": source}, "output": {"url": output}, "model": {"name": model}})


def fetched(run_file: RunFile, columns: bool) -> tuple[int, int, int]:
    """Bytes needed, bytes fetched and blocks of a whole run that does nothing but read."""
    opened = open_source(run_file.source.url)
    plan = make_plan(run_file, opened.spec, find_card(run_file.model.name))
    before, needed = traffic().bytes_fetched, 0
    for work in missing_work(plan.blocks, ShardSet(plan.shards), columns=columns):
        needed += opened.read(plan.source_box(work.output_box)).nbytes
    return needed, traffic().bytes_fetched - before, plan.blocks.n_blocks


def latency(folder: Path, repeats: int) -> Iterator[Row]:
    """Whole runs over HTTP: with and without latency, and with rendering as slow as reading."""
    yield "a run over HTTP", "seconds", "of the rate without latency"
    spec = specs(folder)["zarr v3, sharded"]
    spec["kvstore"]["path"] = f"{folder}/www/v3/"  # type: ignore[index]
    write(spec, em_like(SHAPE))
    with nginx(folder / "www", folder / "nginx") as url, FaultyProxy(url) as proxy:
        reading_s = min(seconds_of_reading(folder, proxy, 0.0) for _ in range(2))
        n_gaps = SHAPE[0] * 1.1  # some gaps are touched by two blocks
        best: dict[float, float] = {}
        for _, wait in product(range(max(2, repeats // 2)), (0.0, LATENCY_S)):
            took = seconds_of_run(folder, proxy, wait, reading_s / n_gaps)
            best[wait] = min(best.get(wait, took), took)
        yield "no latency", f"{best[0.0]:.2f}", "1"
        yield "30 ms a request", f"{best[LATENCY_S]:.2f}", f"{best[0.0] / best[LATENCY_S]:.2f}"


def seconds_of_reading(folder: Path, proxy: FaultyProxy, wait_s: float) -> float:
    """How long the reads of the run take, one after the other."""
    proxy.latency_s = wait_s
    begun = time.perf_counter()
    run_file = over_http(folder, proxy)
    opened = open_source(run_file.source.url, voxel_size_nm=NM)
    plan = make_plan(run_file, opened.spec, find_card("linear"))
    for work in missing_work(plan.blocks, ShardSet(plan.shards), columns=plan.by_columns):
        opened.read(plan.source_box(work.output_box))
    return time.perf_counter() - begun


def seconds_of_run(folder: Path, proxy: FaultyProxy, wait_s: float, gap_s: float) -> float:
    """A run whose rendering is made to take `gap_s` more a gap."""

    def slow(event: Event) -> None:
        if isinstance(event, PlanesDone):
            time.sleep(gap_s)

    proxy.latency_s = wait_s
    begun = time.perf_counter()
    run_file = over_http(folder, proxy)
    assert run(run_file, listener=slow).exit_code == 0
    assert status(run_file.output.url).n_blocks > 1
    return time.perf_counter() - begun


def over_http(folder: Path, proxy: FaultyProxy) -> RunFile:
    tables = {
        "source": {"url": f"{proxy.url}/v3", "voxel_size_nm": NM},
        "output": {"url": tempfile.mkdtemp(dir=folder) + "/out.zarr"},
        "model": {"name": "linear"},
        "run": {"block_shape": [64, 512, 1024]},
    }
    return config.parse(tables)


if __name__ == "__main__":
    main()
