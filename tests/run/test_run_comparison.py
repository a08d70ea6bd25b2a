"""Methods held against a truth: what rows hold, what is kept, what is refused before anything is rendered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from vemdiffuse_pipe.comparison.compare import ComparedTable, compare, read_truth
from vemdiffuse_pipe.comparison.file import ComparisonFile
from vemdiffuse_pipe.comparison.in_memory import reconstruct_in_memory
from vemdiffuse_pipe.config import ModelTable, RunTable, check
from vemdiffuse_pipe.errors import ConfigError, InputError, ModelError, PlanError
from vemdiffuse_pipe.evaluation import evaluate, interpolate
from vemdiffuse_pipe.evaluation.degradation import degrade
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.running.reconstruct import reconstruct
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.volume import Voxels

SHAPE = (31, 40, 43)
LINEAR = {"name": "linear", "model": "linear"}
DEFAULT = {
    "name": "default",
    "model": "fib25-2026-11",
    "steps": 2,
    "samples": [1, 2],
    "draws": ["independent", "pairs"],
}
TWIN = {"name": "one pass", "model": "fib25-2026-11", "steps": 1}


@pytest.fixture(scope="module")
def volume() -> Voxels:
    return phantom(SHAPE, 6)


@pytest.fixture
def comparison(tmp_path: Path, volume: Voxels) -> Callable[..., ComparisonFile]:
    """Makes comparisons on the phantom, kept in a folder of this test."""
    return comparison_in(tmp_path, volume)


def comparison_in(folder: Path, volume: Voxels) -> Callable[..., ComparisonFile]:
    """Makes comparisons on `volume`: linear interpolation, and the methods that are given."""
    tifffile.imwrite(folder / "truth.tif", volume, photometric="minisblack")

    def made(*methods: dict[str, Any], truth: dict[str, Any] | None = None, **compare: Any) -> ComparisonFile:
        tables = {
            "truth": {"url": str(folder / "truth.tif"), "voxel_size_nm": [10, 10, 10], "planes": [0, 31]},
            "compare": {"ratios": [5], "results": str(folder / "rows"), **compare},
            "method": [LINEAR, *methods],
            "run": {"threads": 1},
        }
        tables["truth"] |= truth or {}
        return check(ComparisonFile, tables)

    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, volume: Voxels) -> ComparedTable:
    """Interpolation, the one-pass reference and the default model at r = 5, sections dropped."""
    return compare(comparison_in(tmp_path_factory.mktemp("shared"), volume)(TWIN, DEFAULT))[0]


def test_rows_are_those_of_the_methods_and_hold_what_evaluation_says(
    table: ComparedTable, volume: Voxels
) -> None:
    drawn = [f"default, {draws}" for draws in ("one sample", "mean of 2", "mean of 2 in pairs")]
    assert list(table.rows) == ["truth", "linear", "one pass", *drawn]
    linear = to_grey(interpolate(volume[::5], 5, order=1))
    expected = evaluate(linear, volume, planes=[z for z in range(31) if z % 5])
    assert table.rows["linear"].report == expected
    assert table.rows["truth"].report.psnr == float("inf")


def test_tables_are_one_for_each_ratio_and_each_way_of_making_sections(
    comparison: Callable[..., ComparisonFile], volume: Voxels
) -> None:
    file = comparison(ratios=[4, 5], degradations=["dropped", "averaged"])
    tables = compare(file)
    assert [(t.degradation, t.ratio) for t in tables] == [
        ("dropped", 4), ("dropped", 5), ("averaged", 4), ("averaged", 5),
    ]  # fmt: skip
    averaged = degrade(volume, 4, "averaged")
    expected = evaluate(
        to_grey(interpolate(averaged.sections, 4, order=1)), averaged.truth, planes=averaged.generated
    )
    assert tables[2].rows["linear"].report == expected
    (only,) = compare(file, ratios=[5], degradations=["averaged"])
    assert only == tables[3]


def test_the_mean_of_independent_draws_is_the_mean_of_runs_with_other_seeds(
    table: ComparedTable, volume: Voxels
) -> None:
    draws = [
        reconstruct_in_memory(
            volume[::5], ModelTable(name="fib25-2026-11", ratio=5, samples=1, steps=2, seed=seed)
        ).arrays["em"]
        for seed in (0, 1)
    ]
    planes = [z for z in range(31) if z % 5]
    for row, prediction in (("one sample", draws[0]), ("mean of 2", to_grey(np.mean(draws, axis=0)))):
        assert table.rows[f"default, {row}"].report == evaluate(prediction, volume, planes=planes)


def test_a_model_with_two_answers_has_a_row_for_each(comparison: Callable[..., ComparisonFile]) -> None:
    """Planes as thin as those of the truth, and as thick, where the truth was cut so."""
    methods = {"name": "both", "model": "default", "steps": 2}
    dropped, averaged, thick = compare(
        comparison(methods, degradations=["dropped", "averaged", "thick"], ratios=[3])
    )
    for table in (dropped, averaged, thick):
        assert list(table.rows) == ["truth", "linear", "both", "both, one sample"]
        estimate, sample = table.rows["both"], table.rows["both, one sample"]
        assert estimate.report != sample.report
    assert averaged.rows["both"].report != thick.rows["both"].report


def test_in_memory_gives_the_voxels_that_a_run_gives(tmp_path: Path, volume: Voxels) -> None:
    sections = volume[::5]
    tifffile.imwrite(tmp_path / "sections.tif", sections, photometric="minisblack")
    model = ModelTable(ratio=5, samples=2, steps=2, seed=3)
    rendered = reconstruct_in_memory(sections, model, RunTable(threads=1))
    outcome = reconstruct(
        str(tmp_path / "sections.tif"), str(tmp_path / "out.zarr"), voxel_size_nm=(50, 10, 10),
        model="linear",
    )  # fmt: skip
    assert outcome.exit_code == 0
    linear = reconstruct_in_memory(sections, ModelTable(name="linear", ratio=5)).arrays["em"]
    stored = open_source(str(tmp_path / "out.zarr" / "em"))
    assert np.array_equal(linear, stored.read(stored.spec.frame.box))
    assert np.array_equal(rendered.arrays["em"][::5], sections)
    assert rendered.arrays["uncertainty"][1::5].any()
    assert min(rendered.seconds, rendered.flop, rendered.peak_bytes) > 0


def test_theory_is_the_one_pass_reference_less_what_the_noise_of_samples_costs(table: ComparedTable) -> None:
    one_pass = table.rows["one pass"].report.psnr
    assert [(theory.samples, theory.psnr) for theory in table.theories] == [
        (1, table.rows["default, one sample"].report.psnr),
        (2, table.rows["default, mean of 2"].report.psnr),
    ]
    assert [theory.expected for theory in table.theories] == pytest.approx(
        [one_pass - 3.0103, one_pass - 1.7609], abs=1e-4
    )


def test_costs_are_of_all_samples_together(table: ComparedTable) -> None:
    rows = table.rows
    one, two, pair = (rows[f"default, {row}"] for row in ("one sample", "mean of 2", "mean of 2 in pairs"))
    assert two.flop_per_voxel == pair.flop_per_voxel == 2 * one.flop_per_voxel
    assert two.voxels_per_s < one.voxels_per_s
    assert rows["linear"].peak_bytes > 10**7


@pytest.mark.slow
def test_running_again_takes_rows_as_they_were_and_makes_only_those_that_are_missing(
    comparison: Callable[..., ComparisonFile], tmp_path: Path
) -> None:
    made: list[str] = []
    first = compare(comparison(DEFAULT), on_row=made.append)
    assert len(made) == 4
    assert not first[0].theories  # without a one-pass reference there is none
    file = tmp_path / "rows" / "rows.jsonl"
    assert compare(comparison(DEFAULT), on_row=made.append) == first  # costs and all
    assert len(made) == 4
    lines = file.read_text().splitlines()
    torn = next(i for i, line in enumerate(lines) if "mean of 2 in pairs" in line)
    file.write_text("\n".join([*lines[:torn], *lines[torn + 1 :], lines[torn][:40]]))
    again = compare(comparison(DEFAULT), on_row=made.append)
    assert made[4:] == ["dropped, r = 5: default, mean of 2 in pairs"]
    pairs = "default, mean of 2 in pairs"
    assert again[0].rows[pairs].report == first[0].rows[pairs].report
    assert compare(comparison(DEFAULT), on_row=made.append) == again
    assert len(made) == 5


@pytest.mark.slow
def test_a_row_of_another_drive_is_not_taken_and_a_name_is_only_a_name(
    comparison: Callable[..., ComparisonFile],
) -> None:
    one = {**DEFAULT, "samples": [1], "steps": 1}
    changes = [
        {"steps": 2},
        {"steps": 2, "seed": 1},
        {"precision": "bfloat16"},
        {"tile_px": 32, "overlap_px": 8},
    ]
    made: list[str] = []
    compare(comparison(one), on_row=made.append)
    compare(comparison({**one, "name": "again"}), on_row=made.append)
    assert len(made) == 2  # linear and default
    others = [{**one, **change, "name": str(i)} for i, change in enumerate(changes)]
    compare(comparison(*others), on_row=made.append)
    assert [row.partition(": ")[2].partition(",")[0] for row in made[2:]] == ["0", "1", "2", "3"]


def test_a_row_of_another_truth_is_not_taken(comparison: Callable[..., ComparisonFile]) -> None:
    made: list[str] = []
    for planes in ([0, 26], [5, 31]):  # as large, so that only its voxels tell it apart
        compare(comparison(truth={"planes": planes}), on_row=made.append)
    assert len(made) == 2


def test_the_truth_is_the_middle_of_the_planes_that_were_asked_for(
    comparison: Callable[..., ComparisonFile], volume: Voxels
) -> None:
    truth = comparison(truth={"planes": [3, 24], "middle_px": 20}).truth
    assert np.array_equal(read_truth(truth), volume[3:24, 10:30, 11:31])


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], type[InputError], str]] = {
    "planes beyond": ({"planes": [0, 99]}, {}, DEFAULT, ConfigError, "31 planes"),
    "planes descend": ({"planes": [9, 3]}, {}, DEFAULT, ConfigError, "stop lies above first"),
    "too small": ({"planes": [0, 8]}, {}, DEFAULT, ConfigError, "11 or more"),
    "too few for a gap": ({"planes": [0, 12]}, {"ratios": [12]}, DEFAULT, ConfigError, "at least 13 planes"),
    "ratio of no model": ({}, {"ratios": [5, 15]}, DEFAULT, PlanError, "ratio 2 to 12"),
    "unknown model": ({}, {}, {**DEFAULT, "model": "nosuch"}, ModelError, "no model 'nosuch'"),
    "one name twice": ({}, {}, LINEAR, ConfigError, "the same name"),
    "samples of linear": ({}, {}, {**LINEAR, "name": "l", "samples": [2]}, ConfigError, "draws no samples"),
    "unknown key": ({}, {}, {**DEFAULT, "sampels": [1]}, ConfigError, "did you mean samples"),
    "unknown way": ({}, {"degradations": ["blurred"]}, DEFAULT, ConfigError, "degradations"),
    "results in a file": ({}, {"results": "/dev/null/rows"}, DEFAULT, ConfigError, "another folder"),
}


@pytest.mark.parametrize(("truth", "tables", "method", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence_before_anything_is_rendered(
    comparison: Callable[..., ComparisonFile],
    tmp_path: Path,
    truth: dict[str, Any],
    tables: dict[str, Any],
    method: dict[str, Any],
    error: type[InputError],
    says: str,
) -> None:
    with pytest.raises(error) as refusal:
        compare(comparison(method, truth=truth, **tables))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "rows").exists()


def test_rows_are_json_lines(comparison: Callable[..., ComparisonFile], tmp_path: Path) -> None:
    compare(comparison())
    rows = [json.loads(line) for line in (tmp_path / "rows" / "rows.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["truth", "linear"]
    assert rows[0]["psnr"] is None


def test_a_method_has_rows_at_its_own_ratios_only(comparison: Callable[..., ComparisonFile]) -> None:
    cubic = {"name": "cubic", "model": "cubic", "ratios": [5]}
    at_5, at_6 = compare(comparison(cubic, ratios=[5, 6]))
    assert "cubic" in at_5.rows
    assert "cubic" not in at_6.rows
