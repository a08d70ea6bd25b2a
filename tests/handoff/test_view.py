"""The viewer: what is drawn lies where it should, and nothing is left running."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image
from run.small_runs import small_run

from vemdiffuse_pipe import reconstruct, run
from vemdiffuse_pipe.errors import ConfigError, OutputError, SourceError
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.handoff import chromium
from vemdiffuse_pipe.handoff.viewer import serve, view_link, view_picture
from vemdiffuse_pipe.handoff.views import Layer, public_link, state
from vemdiffuse_pipe.storage import create_sink, open_sink
from vemdiffuse_pipe.testing import position_coded

NM = Fraction(10)
SHAPE = (24, 60, 80)
CORNER = (Fraction(-50), Fraction(200), Fraction(300))
BRIGHT = (slice(8, 16), slice(10, 30), slice(40, 60))  # voxels of em
DOUBTFUL = (slice(8, 16), slice(35, 50), slice(10, 30))


def write_output(path: Path) -> str:
    """An output with a bright block in em and a doubtful one in uncertainty."""
    frame = Frame(SHAPE, (NM, NM, NM), CORNER)
    chunk = {"chunk_shape": (8, 32, 32), "shard_shape": (8, 64, 96)}
    codes = np.full(SHAPE[0], 2, np.uint8)
    create_sink(path, frame, attributes={}, provenance=codes, **chunk)  # type: ignore[arg-type]
    em, uncertainty = np.full(SHAPE, 60, np.uint8), np.zeros(SHAPE, np.uint8)
    em[BRIGHT], uncertainty[DOUBTFUL] = 250, 80
    sink = open_sink(path)
    for z in range(0, SHAPE[0], 8):
        box = frame.box.__class__((z, 0, 0), (z + 8, *SHAPE[1:]))
        sink.write("em", box, em[z : z + 8])
        sink.write("uncertainty", box, uncertainty[z : z + 8])
    return str(path)


@pytest.mark.slow
def test_a_picture_shows_em_and_uncertainty_where_they_lie(tmp_path: Path) -> None:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    if not any(map(shutil.which, chromium.PROGRAMS)):
        pytest.skip("no Chromium on this machine")
    output = write_output(tmp_path / "out.zarr")
    middle = tuple(c + NM * n / 2 for c, n in zip(CORNER, SHAPE, strict=True))
    png = view_picture(output, (middle[0], middle[1], middle[2]), "xy")
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    height, width, _ = pixels.shape
    px_per_voxel = 4  # the largest zoom of a small volume

    def at(y: int, x: int) -> np.ndarray:
        row = height / 2 + (y - SHAPE[1] / 2) * px_per_voxel
        column = width / 2 + (x - SHAPE[2] / 2) * px_per_voxel
        return pixels[round(row), round(column)]

    assert at(20, 50).min() > 200  # inside the bright block
    assert abs(at(20, 38) - 60).max() < 40  # beside it
    assert np.ptp(at(42, 20)) > 60  # coloured: doubtful
    assert np.ptp(at(52, 20)) < 20  # grey beside it
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if "vemdiffuse-view-" in " ".join(p.info["cmdline"] or [])
    ]


@pytest.mark.slow
def test_the_viewer_serves_on_loopback_until_it_is_interrupted(tmp_path: Path) -> None:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    output = write_output(tmp_path / "out.zarr")
    command = [sys.executable, "-u", "-m", "vemdiffuse_pipe", "view", output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith(("http://127.0.0.1:", "http://localhost:"))
            with urllib.request.urlopen(address, timeout=30) as page:
                assert page.status == 200
            process.stdout.readline()  # how to end it: it waits from here on
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_without_a_browser_it_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs Chromium"):
        view_picture(write_output(tmp_path / "out.zarr"))


def test_a_public_link_to_a_local_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="public store"):
        view_link(write_output(tmp_path / "out.zarr"))


def test_a_view_starts_in_the_middle_with_labels_on_top() -> None:
    layers = [
        Layer("cells", "u", "labels"),
        Layer("uncertainty", "u", "uncertainty"),
        Layer("em", "u"),
        Layer("source", "u"),
    ]
    made = state(layers, Frame(SHAPE, (NM, NM, NM), CORNER))
    assert [layer["name"] for layer in made["layers"]] == ["source", "em", "uncertainty", "cells"]  # type: ignore[union-attr, index]
    assert made["position"] == [30 + 40, 20 + 30, -5 + 12]
    assert public_link(made).startswith("https://")


def test_an_unfinished_run_is_shown_with_its_source_and_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    run_file = small_run(tmp_path)
    run(run_file, max_blocks=3)
    with serve(run_file.output.url) as (page, shown):
        assert [layer.name for layer in shown.layers] == ["source", "em"]
        assert shown.missing == ("21 of 24 blocks: not there yet",)
        assert [layer.name for layer in page.state.layers] == ["source", "em"]


def test_a_source_that_the_page_cannot_read_is_read_here(tmp_path: Path) -> None:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    tifffile.imwrite(tmp_path / "stack.tif", position_coded((3, 20, 24)), photometric="minisblack")
    output = str(tmp_path / "out.zarr")
    reconstruct(str(tmp_path / "stack.tif"), output, voxel_size_nm=(50, 10, 10), model="linear")
    with serve(output) as (page, shown):
        assert shown.read_here is not None
        assert [layer.name for layer in page.state.layers] == ["source", "em"]
        assert page.state.layers["source"].layer.source[0].url.startswith("python://")


def test_an_array_that_cannot_be_read_is_refused_before_the_viewer_starts(tmp_path: Path) -> None:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    output = write_output(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "uncertainty" / "zarr.json").write_text("{")
    with pytest.raises(SourceError, match="uncertainty"), serve(output):
        pass
