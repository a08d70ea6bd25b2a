"""The demonstration, small and with interpolation; its full size runs where the documents are followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vemdiffuse_pipe.demo import demo
from vemdiffuse_pipe.errors import OutputError
from vemdiffuse_pipe.evaluation.compare import verdict
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

SHAPE = (16, 40, 37)


def test_linear_interpolation_by_the_pipeline_is_linear_interpolation(tmp_path: Path) -> None:
    made = demo(tmp_path, model="linear", shape=SHAPE)
    assert list(made.reports) == ["linear", "cubic", "model"]
    assert made.reports["model"] == made.reports["linear"]
    assert verdict(made.reports)[0] in (
        "PSNR: model beats cubic only",
        "PSNR: model beats neither linear nor cubic",
    )


def test_the_default_model_shows_its_estimate_one_sample_and_uncertainty(tmp_path: Path) -> None:
    made = demo(tmp_path, shape=SHAPE)
    assert list(made.reports) == ["linear", "cubic", "estimate", "one sample"]
    assert made.reports["one sample"].psnr < made.reports["estimate"].psnr
    with Image.open(made.picture) as page:
        assert page.width > 5 * 2 * SHAPE[2]
        assert page.height > 2 * (SHAPE[0] + SHAPE[1])
    uncertainty = open_source(tmp_path / "isotropic.zarr" / "uncertainty").read(Box.of_shape(SHAPE))
    assert not uncertainty[::5].any()
    assert uncertainty[1::5].any()


def test_the_sections_are_every_fifth_plane_of_the_truth_and_lie_where_it_lies(tmp_path: Path) -> None:
    demo(tmp_path, model="linear", shape=SHAPE)
    names = ("truth", "sections", "isotropic")
    truth, sections, ours = (open_source(tmp_path / f"{name}.zarr" / "em") for name in names)
    voxels = truth.read(Box.of_shape(SHAPE))
    assert np.array_equal(sections.read(Box.of_shape(sections.spec.shape)), voxels[::5])
    assert np.array_equal(ours.read(Box.of_shape(SHAPE))[::5], voxels[::5])
    assert truth.spec.frame == ours.spec.frame


def test_running_again_changes_nothing(tmp_path: Path) -> None:
    first = demo(tmp_path, model="linear", shape=SHAPE)
    assert demo(tmp_path, model="linear", shape=SHAPE) == first


def test_a_folder_with_another_volume_is_refused(tmp_path: Path) -> None:
    demo(tmp_path, model="linear", shape=SHAPE)
    with pytest.raises(OutputError, match="another volume"):
        demo(tmp_path, model="linear", shape=(21, 40, 37))
