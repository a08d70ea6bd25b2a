"""vemdiffuse compare: tables for people, Markdown and JSON, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from small_volumes import Ended

from vemdiffuse_pipe.comparison.file import load_comparison
from vemdiffuse_pipe.evaluation.table import COLUMNS
from vemdiffuse_pipe.phantom import phantom

WORKFLOWS = Path(__file__).parents[2] / "workflows"
FILE = """
[truth]
url = "truth.tif"
voxel_size_nm = [10, 10, 10]
planes = [0, 21]

[compare]
ratios = [5, 4]
degradations = ["averaged", "dropped"]
results = "rows"

[[method]]
name = "linear"
model = "linear"
"""


@pytest.fixture
def file(here: Path) -> str:
    """A comparison of linear interpolation with a phantom."""
    tifffile.imwrite(here / "truth.tif", phantom((21, 24, 26), 2), photometric="minisblack")
    (here / "compare.toml").write_text(FILE)
    return "compare.toml"


def test_a_table_is_one_ratio_and_one_way_of_making_sections(
    file: str, vemdiffuse: Callable[..., Ended]
) -> None:
    ended = vemdiffuse("compare", file)
    assert ended.code == 0, ended.stderr
    assert [line for line in ended.stdout.splitlines() if line.startswith("sections")] == [
        f"sections {degradation}, r = {r}; generated planes only"
        for degradation in ("averaged", "dropped")
        for r in (5, 4)
    ]
    assert ended.stderr.splitlines()[0] == "averaged, r = 5: linear"
    only = vemdiffuse("compare", file, "--ratio", "4", "--degradation", "dropped")
    assert ended.stdout.endswith(f"\n\n{only.stdout}")
    assert only.stderr == ""  # the rows were there


def test_markdown_is_a_table_of_as_many_cells_in_each_line(
    file: str, vemdiffuse: Callable[..., Ended]
) -> None:
    ended = vemdiffuse("compare", file, "--ratio", "5", "--degradation", "dropped", "--markdown")
    lines = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == ["", "---", "truth", "linear"]
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 5}


def test_json_holds_every_figure(file: str, vemdiffuse: Callable[..., Ended]) -> None:
    tables = json.loads(vemdiffuse("compare", file, "--ratio", "5", "--json").stdout)["tables"]
    assert [(t["degradation"], t["ratio"], list(t["rows"])) for t in tables] == [
        ("averaged", 5, ["truth", "linear"]),
        ("dropped", 5, ["truth", "linear"]),
    ]
    assert tables[0]["rows"]["truth"]["psnr"] is None
    assert {"fsc", "flicker", "flop_per_voxel", "voxels_per_s", "peak_bytes"} <= set(
        tables[0]["rows"]["linear"]
    )


def test_wrong_input_is_one_sentence_and_leaves_nothing(
    file: str, here: Path, vemdiffuse: Callable[..., Ended]
) -> None:
    before = sorted(here.iterdir())
    for name, text in {
        "absent.toml": None,
        "typo.toml": FILE.replace("planes =", "plnes ="),
        "model.toml": FILE.replace('model = "linear"', 'model = "nosuch"'),
        "volume.toml": FILE.replace("truth.tif", "nowhere.tif"),
        "no_toml.toml": "][",
    }.items():
        if text is not None:
            (here / name).write_text(text)
        ended = vemdiffuse("compare", name)
        assert ended.code == 2, name
        assert len(ended.stderr.splitlines()) == 1
        assert "Traceback" not in ended.stderr
        (here / name).unlink(missing_ok=True)
    assert sorted(here.iterdir()) == before


def test_the_comparison_in_workflows_is_whole() -> None:
    file = load_comparison(WORKFLOWS / "compare_fib25.toml")
    assert sorted(file.compare.ratios) == [3, 4, 5, 6, 8, 10]
    assert set(file.compare.degradations) == {"dropped", "averaged", "thick"}
    methods = {method.name: method for method in file.method}
    assert methods["fib25-2026-11"].samples == (1, 2, 4, 8)
    assert (methods["udim"].ratios, methods["a2i3dem"].ratios) == ((5,), (3,))
