"""vemdiffuse register: files out, figures printed, and nothing written where images do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_volumes import Ended

from vemdiffuse_pipe.phantom import phantom

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return phantom((2, 130, 140), 4)


def write(path: Path, voxels: np.ndarray) -> Path:
    tifffile.imwrite(path, voxels, photometric="rgb" if voxels.shape[-1] == 3 else "minisblack")
    return path


def test_a_stack_that_was_shifted_is_laid_back(here: Path, vemdiffuse: Run, clean: np.ndarray) -> None:
    write(here / "raw.tif", np.roll(clean, (5, -3), axis=(1, 2)))
    write(here / "clean.tif", clean)
    ended = vemdiffuse("register", "raw.tif", "clean.tif", "out.tif", "--json")
    assert ended.code == 0, ended.stderr
    image, valid = tifffile.imread(here / "out.tif"), tifffile.imread(here / "out.tif.valid.tif") == 255
    assert image.shape == valid.shape == clean.shape
    assert valid.mean() > 0.6
    assert np.abs(image[valid].astype(float) - clean[valid]).mean() < 3
    first, second = json.loads(ended.stdout)["sections"]
    assert first["before_px"] == pytest.approx(np.hypot(5, 3), abs=0.5)
    assert max(first["residual_px"], second["residual_px"]) < 0.3
    assert len(list(here.iterdir())) == 4


def test_two_images_of_16_bits_are_registered(here: Path, vemdiffuse: Run, clean: np.ndarray) -> None:
    for name in ("raw.tif", "clean.tif"):
        write(here / name, clean[0].astype(np.uint16) * 8)
    ended = vemdiffuse(
        "register", "raw.tif", "clean.tif", "half.tif", "--scale", "2", "--window", "0", "2040"
    )
    assert ended.code == 0, ended.stderr
    assert tifffile.imread(here / "half.tif").shape == (65, 70)


def test_images_that_do_not_fit_are_refused_and_nothing_is_written(
    here: Path, vemdiffuse: Run, clean: np.ndarray
) -> None:
    write(here / "clean.tif", clean)
    write(here / "one.tif", clean[0])
    write(here / "other.tif", phantom((2, 128, 128), 9))
    write(here / "colour.tif", np.zeros((20, 20, 3), np.uint8))
    before = sorted(here.iterdir())
    for raw, words in (
        ("one.tif", "has 1 sections"),
        ("other.tif", "section 0:"),
        ("no.tif", "no.tif"),
        ("colour.tif", "colour.tif"),
    ):
        ended = vemdiffuse("register", raw, "clean.tif", "out.tif")
        assert (ended.code, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert words in ended.stderr
    ended = vemdiffuse("register", "clean.tif", "clean.tif", "one.tif")
    assert ended.code == 2
    assert "is there already" in ended.stderr
    assert sorted(here.iterdir()) == before
