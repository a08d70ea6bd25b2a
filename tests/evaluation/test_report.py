"""What the report of a whole volume says, and what it refuses."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.evaluation import evaluate, interpolate, render_table, structure
from vemdiffuse_pipe.evaluation.views import View, evenly_spaced, views, window
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.phantom import phantom

FIB25 = Path(__file__).parents[2] / ".." / "shared" / "data" / "fib25" / "volume_a_raw.tif"
SHAPE = (31, 47, 53)
R = 5
GENERATED = [z for z in range(SHAPE[0]) if z % R]
SIMILARITIES = ("psnr", "ssim", "ssim_xy", "ssim_xz", "ssim_yz", "fsim_xy", "fsim_xz", "fsim_yz")


@pytest.fixture(scope="module")
def truth():
    return phantom(SHAPE, 3)


@pytest.fixture(scope="module")
def linear(truth):
    return to_grey(interpolate(truth[::R], R, order=1))


def noisy(volume, deviation):
    noise = np.random.Generator(np.random.PCG64(0)).normal(0, deviation, volume.shape)
    return to_grey(volume + noise)


def test_equal_volumes_are_perfect(truth):
    report = asdict(evaluate(truth, truth))
    assert report.pop("psnr") == float("inf")
    assert [report.pop(f"cutoff_{view}") for view in ("xy", "xz", "yz")] != [None] * 3
    perfect = {name: 0.0 if name.startswith("gmsd") else 1.0 for name in report}
    assert report == pytest.approx(perfect, abs=1e-6)


def test_infinity_becomes_none_for_json(truth):
    assert evaluate(truth, truth).as_dict()["psnr"] is None


@pytest.fixture(scope="module")
def noisy_reports(truth):
    """Under a little and under much noise."""
    return [evaluate(noisy(truth, deviation), truth) for deviation in (4, 16)]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_more_noise_lowers_similarity(noisy_reports, name):
    little, much = noisy_reports
    assert getattr(much, name) < getattr(little, name)


@pytest.mark.parametrize("name", ["gmsd_xy", "gmsd_xz", "gmsd_yz", "hf_z", "hf_y", "hf_x"])
def test_more_noise_raises_gmsd_and_texture(noisy_reports, name):
    little, much = noisy_reports
    assert getattr(much, name) > getattr(little, name)


@pytest.mark.parametrize(("axis", "blurred"), [(0, "hf_z"), (1, "hf_y"), (2, "hf_x")])
def test_blur_along_one_axis_loses_texture_along_that_axis_only(axis, blurred):
    """In a sum of three fields, each of which varies along one axis alone."""
    random = np.random.Generator(np.random.PCG64(1))
    fields = [np.reshape(random.uniform(80, 170, n), np.roll((-1, 1, 1), i)) for i, n in enumerate(SHAPE)]
    truth = to_grey(sum(fields) / 3)
    fields[axis] = ndimage.gaussian_filter1d(fields[axis], 2.0, axis)
    report = asdict(evaluate(to_grey(sum(fields) / 3), truth))
    assert report.pop(blurred) < 0.05
    others = [value for name, value in report.items() if name.startswith("hf_")]
    assert others == pytest.approx([1.0, 1.0], abs=0.05)


@pytest.mark.parametrize(
    ("axes", "renamed"),
    [
        ((0, 2, 1), {"xy": "xy", "xz": "yz", "yz": "xz", "z": "z", "y": "x", "x": "y"}),
        ((1, 0, 2), {"xy": "xz", "xz": "xy", "yz": "yz", "z": "y", "y": "z", "x": "x"}),
        ((2, 1, 0), {"xy": "yz", "xz": "xz", "yz": "xy", "z": "x", "y": "y", "x": "z"}),
    ],
)
def test_permuting_the_axes_permutes_the_fields(axes, renamed):
    """Up to the orientation of a view: transposing it changes no metric but those that name their planes."""
    truth = phantom((28, 30, 32), 4)
    prediction = to_grey(ndimage.gaussian_filter(truth.astype(float), (1.5, 0.4, 0.8)))
    straight = asdict(evaluate(prediction, truth))
    turned = asdict(evaluate(prediction.transpose(axes), truth.transpose(axes)))
    for name in turned.keys() - {"flicker", "lines_y", "lines_x"}:
        value = turned[name]
        metric, _, direction = name.partition("_")
        source = f"{metric}_{renamed[direction]}" if direction else metric
        assert value == pytest.approx(straight[source], rel=1e-4), name


def test_damage_in_measured_planes_changes_nothing(truth, linear):
    damaged = linear.copy()
    damaged[::R] = 255 - damaged[::R]
    assert evaluate(damaged, truth, planes=GENERATED) == evaluate(linear, truth, planes=GENERATED)


@pytest.fixture(scope="module")
def damage_reports(truth, linear):
    """Before and after one generated plane is inverted."""
    damaged = linear.copy()
    damaged[R * 3 + 1] = 255 - damaged[R * 3 + 1]
    return [evaluate(v, truth, planes=GENERATED) for v in (linear, damaged)]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_damage_in_one_generated_plane_lowers_every_similarity(damage_reports, name):
    before, after = damage_reports
    assert getattr(after, name) < getattr(before, name)


def test_measured_planes_earn_nothing(truth, linear):
    """Counting perfect planes would raise the score: 6 of 31 planes are worth about 1 dB."""
    assert evaluate(linear, truth, planes=GENERATED).psnr < evaluate(linear, truth).psnr - 0.5


def test_the_order_in_which_planes_are_listed_does_not_matter(truth, linear):
    assert evaluate(linear, truth, planes=GENERATED[::-1]) == evaluate(linear, truth, planes=GENERATED)


def test_psnr_and_ssim_are_those_of_scikit_image(truth, linear):
    report = evaluate(linear, truth)
    assert report.psnr == pytest.approx(peak_signal_noise_ratio(truth, linear, data_range=255), abs=1e-9)
    assert report.ssim == pytest.approx(
        structural_similarity(
            truth, linear, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ),
        abs=1e-9,
    )


def test_ssim_averages_its_map_over_generated_planes_five_voxels_inside(truth, linear):
    _, local = structural_similarity(
        truth,
        linear,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inside = [z for z in GENERATED if 5 <= z < SHAPE[0] - 5]
    expected = local[inside, 5:-5, 5:-5].mean()
    assert evaluate(linear, truth, planes=GENERATED).ssim == pytest.approx(expected, abs=1e-9)


def test_ssim_in_slabs_equals_ssim_at_once(truth, linear, monkeypatch):
    at_once = evaluate(linear, truth, planes=GENERATED).ssim
    monkeypatch.setattr(structure, "SLAB_VOXELS", 3 * truth[0].size)
    assert evaluate(linear, truth, planes=GENERATED).ssim == pytest.approx(at_once, abs=1e-12)


def test_constant_volumes_are_compared_without_a_warning():
    flat = np.full((11, 12, 13), 90, np.uint8)
    report = evaluate(flat, flat)
    assert (report.fsim_xy, report.gmsd_xz, report.hf_x) == (1.0, 0.0, 1.0)
    assert evaluate(noisy(flat, 5), flat).hf_z == float("inf")


def test_xy_views_are_generated_planes_and_other_views_mark_generated_rows(truth):
    position = np.broadcast_to(np.arange(SHAPE[0], dtype=np.uint8)[:, None, None], SHAPE)
    assert [v.truth[0, 0] for v in views(position, position, GENERATED, "xy")] == GENERATED
    for direction in ("xz", "yz"):
        for view in views(position, position, GENERATED, direction):
            assert view.truth[view.rows, 0].tolist() == GENERATED


def test_views_are_evenly_spaced_and_at_most_as_many_as_asked():
    assert evenly_spaced(range(5), 32) == [0, 1, 2, 3, 4]
    chosen = evenly_spaced(range(1009), 32)
    assert len(chosen) == 32
    assert set(np.diff(chosen)) <= {31, 32}
    assert chosen[0] == 15
    assert chosen[-1] == 1009 - 16


@pytest.mark.parametrize("counted", [0, 100, 150, 399])
def test_a_window_holds_a_counted_row_and_at_most_256_px(counted):
    rows = np.arange(400) == counted
    image = np.arange(400 * 300).reshape(400, 300).astype(np.uint8)
    part = window(View(image, image, rows))
    assert part.truth.shape == (256, 256)
    assert part.rows.sum() == 1
    assert (part.truth[part.rows] == image[rows][:, 22:278]).all()


def test_a_small_view_is_its_own_window():
    image = np.zeros((61, 192), np.uint8)
    assert window(View(image, image, np.ones(61, bool))).truth.shape == (61, 192)


@pytest.mark.skipif(not FIB25.is_file(), reason="../shared/data/fib25 is absent")
def test_interpolation_of_real_tissue_scores_as_first_measured():
    pages = range(220, 281)
    truth = np.ascontiguousarray(tifffile.imread(FIB25, key=pages)[:, :192, 328:520])
    generated = [z for z in range(61) if z % 5]
    linear, cubic = (
        evaluate(to_grey(interpolate(truth[::5], 5, order)), truth, planes=generated) for order in (1, 3)
    )
    assert linear.psnr == pytest.approx(28.4, abs=0.2)
    assert cubic.psnr == pytest.approx(28.0, abs=0.3)
    assert linear.fsim_xz == pytest.approx(0.91, abs=0.015)
    assert linear.hf_x == pytest.approx(0.62, abs=0.03)
    assert linear.hf_z < 0.3


REFUSED = {
    "shapes differ": ((12, 12, 12), (12, 12, 13), np.uint8, None, "crop both"),
    "floating point": ((12, 12, 12), (12, 12, 12), np.float32, None, "float32"),
    "two axes": ((12, 12), (12, 12), np.uint8, None, "three axes"),
    "too small": ((12, 10, 12), (12, 10, 12), np.uint8, None, "11 voxels"),
    "a plane outside": ((12, 12, 12), (12, 12, 12), np.uint8, [5, 12], "5..12"),
    "a negative plane": ((12, 12, 12), (12, 12, 12), np.uint8, [-1, 5], "-1..5"),
    "a plane twice": ((12, 12, 12), (12, 12, 12), np.uint8, [5, 5], "twice"),
    "no plane": ((12, 12, 12), (12, 12, 12), np.uint8, [], "(none)"),
    "planes at the ends only": ((12, 12, 12), (12, 12, 12), np.uint8, [0, 4, 7], "deeper"),
}


@pytest.mark.parametrize(("shape_a", "shape_b", "dtype", "planes", "says"), REFUSED.values(), ids=REFUSED)
def test_wrong_input_is_refused_in_one_sentence(shape_a, shape_b, dtype, planes, says):
    with pytest.raises(ConfigError) as refusal:
        evaluate(np.zeros(shape_a, dtype), np.zeros(shape_b, dtype), planes=planes)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_nan_is_refused():
    volume = np.full((12, 12, 12), np.nan)
    with pytest.raises(ConfigError, match="scale floating-point"):
        evaluate(volume, volume)


def test_the_table_has_a_line_a_report_and_aligned_columns(truth, linear):
    report = evaluate(linear, truth)
    table = render_table({"linear": report, "a longer name": replace(report, psnr=float("inf"))})
    heading, first, second = table.split("\n")
    assert " ".join(heading.split()) == (
        "PSNR SSIM FSIM-xy FSIM-xz FSIM-yz GMSD HF-x HF-y HF-z "
        "FSC cutoff-xy cutoff-xz flicker lines-y lines-x"
    )
    assert len(heading) == len(first) == len(second)
    assert first.split()[:3] == ["linear", f"{report.psnr:.2f}", f"{report.ssim:.3f}"]
    assert " inf " in second
    assert first.split()[-7:-5] == [f"{report.hf_z:.2f}", f"{report.fsc:.2f}"]
