"""The run file of every public volume, run on a small one of the same layout, on a server of its own.

The public stores cannot be reached from here. The run file is read, its address is moved from the public
store to the local one, under the same keys, and its model is set to linear, whose voxels are known exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import public_layouts as layouts
import pytest
from servers import client, needs_nginx, nginx, s3, upload
from small_volumes import Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.config import RunFile, RunTable
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_sink, open_source
from vemdiffuse_pipe.storage.catalogue import datasets

WORKFLOWS = Path(__file__).parents[2] / "workflows"
PUBLIC = re.compile(r"(?P<format>precomputed://|)(?P<scheme>s3|gs)://(?P<bucket>[^/]+)/(?P<key>.+)")

Vemdiffuse = Callable[..., Ended]


@dataclass(frozen=True)
class Layout:
    """How one public volume is laid out: who writes it, where its finest level is, and what reads that."""

    name: str
    write: Callable[[Path], None]
    driver: str
    container: str = ""  # where the writer begins, below the bucket; the whole key if left out
    finest: str = ""
    copy: int | None = None  # of the catalogue's other addresses
    spec: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}-{self.driver}{'-sharded' if 'sharding' in str(self.write) else ''}"


def openorganelle(name: str) -> list[Layout]:
    zarr = Layout(name, layouts.openorganelle_zarr, "zarr", f"{name}/{name}.zarr", "s0")
    n5 = Layout(name, layouts.openorganelle_n5, "n5", f"{name}/{name}.n5", "s0", copy=0)
    return [zarr, n5]


def precomputed(name: str, sizes: list[tuple[float, ...]], **scale: object) -> Layout:
    write = partial(layouts.precomputed, sizes_nm=sizes, **scale)
    return Layout(name, write, "neuroglancer_precomputed", spec={"scale_index": 0})


LAYOUTS = [
    *openorganelle("jrc_mus-kidney"),
    *openorganelle("jrc_mus-liver"),
    *openorganelle("jrc_ctl-id8-2"),
    precomputed("microns", layouts.MICRONS),
    precomputed("microns", layouts.MICRONS, sharding=layouts.SHARDING),
    precomputed("fanc", layouts.FANC),
    precomputed("manc", layouts.MANC),
    precomputed("manc", layouts.MANC, sharding=layouts.SHARDING),
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3() as url:
        yield url


def test_every_public_volume_has_a_run_file_that_names_its_address() -> None:
    for name, dataset in datasets().items():
        run_file = config.load(WORKFLOWS / f"{name}.toml")
        assert dataset.address in (None, run_file.source.url)
        assert dataset.voxel_size_nm in (None, run_file.source.voxel_size_nm)


def test_every_public_volume_has_a_layout_here() -> None:
    assert {layout.name for layout in LAYOUTS} | {"epfl"} == set(datasets())


@needs_nginx
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_run_file_of_a_public_volume_runs_where_only_the_address_differs(
    here: Path, vemdiffuse: Vemdiffuse, endpoint: str, layout: Layout
) -> None:
    run_file = config.load(WORKFLOWS / f"{layout.name}.toml")
    public = run_file.source.url if layout.copy is None else datasets()[layout.name].also[layout.copy]
    found = PUBLIC.fullmatch(public)
    assert found is not None
    www = here / "www"
    top = www / (layout.container or found["key"])
    top.parent.mkdir(parents=True)
    layout.write(top)
    sections = layouts.stored_by_tensorstore(layout.driver, www / found["key"] / layout.finest, **layout.spec)
    with nginx(www, here / "nginx") as server:
        store = server if found["scheme"] == "gs" else upload(www, endpoint, here.name)
        local = redirected(run_file, f"{found['format']}{store}/{found['key']}")
        assert vemdiffuse("plan", local).code == 0
        ended = vemdiffuse("run", local)
    assert ended.code == 0, ended.stderr
    check_output("out.zarr", sections, run_file)


def test_the_run_file_of_the_stack_that_must_be_downloaded_runs_on_the_file(
    here: Path, vemdiffuse: Vemdiffuse
) -> None:
    run_file = config.load(WORKFLOWS / "epfl.toml")
    layouts.tiff(here / run_file.source.url)
    ended = vemdiffuse("run", redirected(run_file, run_file.source.url))
    assert ended.code == 0, ended.stderr
    check_output("out.zarr", layouts.voxels_of(0), run_file)


def test_a_public_volume_is_opened_by_its_name(
    here: Path, vemdiffuse: Vemdiffuse, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = PUBLIC.fullmatch(datasets()["microns"].address or "")
    assert found is not None
    layouts.precomputed(here / "www" / found["key"], layouts.MICRONS)
    client(endpoint).create_bucket(Bucket=found["bucket"], ACL="public-read")
    upload(here / "www", endpoint, "", bucket=found["bucket"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)  # where every program of AWS looks for the store
    facts = json.loads(vemdiffuse("inspect", "microns", "--json").stdout)
    assert [level["name"] for level in facts["levels"]] == ["8_8_40", "16_16_40", "32_32_40", "64_64_80"]
    assert open_source("microns").spec.url == facts["url"]
    ended = vemdiffuse("reconstruct", "microns", "out.zarr", "--model", "linear")
    assert ended.code == 0, ended.stderr
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # what is stored is the address, not the name
    stored = config.load(Path("out.zarr.toml"))
    assert stored.source.url == facts["url"]
    identity = open_sink("out.zarr").attributes["identity"]
    assert isinstance(identity, dict)
    assert identity["source"] == facts["url"]
    assert vemdiffuse("verify", "out.zarr").code == 0


def test_the_level_is_the_one_of_the_voxel_size_in_the_run_file(here: Path, vemdiffuse: Vemdiffuse) -> None:
    layouts.precomputed(here / "em", layouts.MICRONS)
    text = redirected(config.load(WORKFLOWS / "microns.toml"), "em").read_text()
    for size, level in (("40.0, 8.0, 8.0", "8_8_40"), ("40.0, 16.0, 16.0", "16_16_40")):
        Path("run.toml").write_text(text.replace("40.0, 8.0, 8.0", size))
        facts = json.loads(vemdiffuse("plan", "run.toml", "--json").stdout)
        assert facts["source"]["level"] == level
    Path("run.toml").write_text(text.replace("40.0, 8.0, 8.0", "40.0, 9.0, 9.0"))
    assert "no level with voxels of 40 x 9 x 9 nm" in vemdiffuse("plan", "run.toml").stderr


def redirected(run_file: RunFile, url: str) -> Path:
    """The run file with another address, output and model, on this machine, and nothing else."""
    local = run_file.model_copy(
        update={
            "source": run_file.source.model_copy(update={"url": url, "assume": None}),
            "output": run_file.output.model_copy(update={"url": "out.zarr"}),
            "model": run_file.model.model_copy(update={"name": "linear"}),
            "run": RunTable(),
        }
    )
    Path("local.toml").write_text(config.dump(local))
    return Path("local.toml")


def check_output(output: str, sections: np.ndarray, run_file: RunFile) -> None:
    """Sections pass bit for bit, planes between are interpolated, and voxels have the size that is stated."""
    ratio = run_file.model.ratio
    assert ratio is not None
    sink = open_sink(output)
    planes = sink.read("em", Box.of_shape(sink.spec.shape))
    assert len(planes) == (len(sections) - 1) * ratio + 1
    np.testing.assert_array_equal(planes[::ratio], sections)
    for j in range(1, ratio):
        between = sections[:-1] + (sections[1:].astype(np.float64) - sections[:-1]) * j / ratio
        np.testing.assert_array_equal(planes[j::ratio], np.floor(between + 0.5 + 2**-10))
    z, y, x = run_file.source.voxel_size_nm or (0, 0, 0)
    np.testing.assert_allclose([float(v) for v in sink.spec.frame.voxel_size_nm], [z / ratio, y, x])
