"""`vemdiffuse train FILE`: what it makes, what it refuses, and that nothing stops it for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tifffile
import tomlkit
import torch
from small_training import smooth_stack, train_tables

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.errors import InputError, ModelError, OutputError
from vemdiffuse_pipe.models.card import read_card
from vemdiffuse_pipe.models.checkpoint import load_model
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.training.examples import training_data
from vemdiffuse_pipe.training.gap_examples import around
from vemdiffuse_pipe.training.run import identity_of, train
from vemdiffuse_pipe.training.settings import load, parse

QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def written(folder: Path, tables: Mapping[str, object]) -> Path:
    """The tables as a TOML file."""
    path = folder / "train.toml"
    path.write_text(tomlkit.dumps(tables))
    return path


def tensors(folder: Path) -> bytes:
    """The tensors of a state: its header says how long it took."""
    state = (folder / "state.safetensors").read_bytes()
    return state[8 + int.from_bytes(state[:8], "little") :]


def losses(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) as logged."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(r["step"], r["loss"]) for r in records if "loss" in r]


def started(path: Path, *before: str) -> subprocess.Popen[str]:
    command = [sys.executable, *before, "-m", "vemdiffuse_pipe", "train", str(path)]
    return subprocess.Popen(command, env=QUIET, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    smooth_stack(tmp_path)
    return tmp_path


HELD = {"share": 0.3, "gaps": 2, "crop_px": 32}


def test_it_writes_a_checkpoint_that_fills_gaps_and_says_how_it_came_about(folder: Path) -> None:
    tables = train_tables(
        folder, validation=HELD, output={"name": "mine", "trained_on": "waves", "licence": "CC0"}
    )
    trained = train(parse(tables))
    assert trained.outcome.step == 12
    assert trained.checkpoint == folder / "trained/mine.safetensors"
    card = read_card(trained.checkpoint)
    assert (card.name, card.min_ratio, card.trained_on, card.licence) == ("mine", 3, "waves", "CC0")
    assert "steps of 4 crops of 16 x 16 px, cpu" in card.training
    load_model(str(trained.checkpoint), steps=2, contrast=(128, 40), precision="float32")
    names = {path.name for path in trained.folder.iterdir()}
    assert {"log.jsonl", "loss.png", "step_6.png", "step_12.png", "state.safetensors"} <= names
    records = [json.loads(line) for line in (trained.folder / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [3, 6, 9, 12]
    scored = [r for r in records if "score" in r]
    assert {"psnr", "texture_rows", "texture_columns", "lines"} < set(scored[0])
    assert trained.outcome.best == pytest.approx(max(r["score"] for r in scored), abs=1e-3)


@pytest.mark.parametrize(
    ("axis", "z"), [("y", "as-is"), ("yx", "as-is"), ("yx", "resampled"), ("yx", "mixed")]
)
def test_an_anisotropic_volume_trains_a_network_for_its_own_gaps(folder: Path, axis: str, z: str) -> None:
    tables = train_tables(
        folder,
        source={"url": str(folder / "volume.tif"), "voxel_size_nm": [40, 10, 10]},
        data={"axis": axis, "z": z, "ratio": None, "crop_px": [16, 24]},
        validation={**HELD, "axis": "x"},
        train={"steps": 3, "validate_every": 3},
    )
    trained = train(parse(tables))
    assert trained.checkpoint is not None
    card = read_card(trained.checkpoint)
    assert (card.min_ratio, card.max_ratio) == (4, 4)
    assert "in its place" in card.voxel_size_nm or "in their place" in card.voxel_size_nm


def test_on_an_exact_grid_gaps_are_as_wide_as_the_whole_numbers_around_their_mean(folder: Path) -> None:
    tables = train_tables(
        folder,
        source={"url": str(folder / "volume.tif"), "voxel_size_nm": [33, 10, 10]},
        data={"axis": "yx", "grid": "exact", "ratio": None, "crop_px": [16, 24]},
        validation={**HELD, "axis": "x"},
        train={"steps": 3, "validate_every": 3},
    )
    file = parse(tables)
    (source,) = file.source
    made = training_data(file, [open_source(source.url, voxel_size_nm=source.voxel_size_nm)])
    assert made.ratios == pytest.approx({3: 0.7, 4: 0.3})
    trained = train(file)
    assert trained.checkpoint is not None
    card = read_card(trained.checkpoint)
    assert (card.min_ratio, card.max_ratio) == (3, 4)
    assert identity_of(file, made, 1.0)["data.grid"] == "exact"


def test_a_training_begun_before_grids_could_be_chosen_is_the_same_training(folder: Path) -> None:
    file = parse(train_tables(folder))
    (source,) = file.source
    made = training_data(file, [open_source(source.url, voxel_size_nm=source.voxel_size_nm)])
    assert "data.grid" not in identity_of(file, made, 1.0)


@pytest.mark.parametrize(
    ("r", "weights"),
    [
        (5, {5: 1.0}),
        (Fraction(9, 2), {4: 0.5, 5: 0.5}),
        (Fraction(450, 43), {10: 23 / 43, 11: 20 / 43}),
        (Fraction(8, 5), {2: 1.0}),
    ],
)
def test_the_mean_of_the_gaps_is_the_ratio_and_none_is_narrower_than_two(
    r: Fraction | int, weights: dict[int, float]
) -> None:
    assert around(r) == pytest.approx(weights)


def test_one_pass_regression_trains_by_the_same_loop(folder: Path) -> None:
    tables = train_tables(folder, model={"kind": "regression"}, validation=HELD)
    assert train(parse(tables)).checkpoint is not None


def test_contrast_and_scale_are_measured_and_kept_when_it_goes_on(folder: Path) -> None:
    tables = train_tables(folder, model={"residual_scale": None}, train={"steps": 3})
    del tables["source"]["contrast"]  # type: ignore[attr-defined]
    first = train(parse(tables))
    assert train(parse(tables)).outcome == first.outcome
    assert first.checkpoint is not None
    assert 0.01 < read_card(first.checkpoint).residual_scale < 3


def test_bad_sections_are_named_or_left_out(folder: Path) -> None:
    stack = tifffile.imread(folder / "volume.tif")
    stack[17] = 0
    tifffile.imwrite(folder / "volume.tif", stack, photometric="minisblack")
    with pytest.raises(InputError, match=r"no data: 17 \(black\)"):
        train(parse(train_tables(folder)))
    source = {"bad_sections": "bridge", "url": str(folder / "volume.tif")}
    assert train(parse(train_tables(folder, source=source))).checkpoint is not None


def test_a_folder_of_another_training_is_refused_by_what_differs(folder: Path) -> None:
    train(parse(train_tables(folder)))
    before = tensors(folder / "trained")
    with pytest.raises(OutputError, match=r"data.ratio 3 -> 2"):
        train(parse(train_tables(folder, data={"ratio": 2})))
    with pytest.raises(OutputError, match=r"train.seed 0 -> 1"):
        train(parse(train_tables(folder, train={"seed": 1})))
    assert tensors(folder / "trained") == before


def test_fine_tuning_begins_with_a_checkpoint_and_keeps_its_encoder(folder: Path) -> None:
    first = train(parse(train_tables(folder)))
    assert first.checkpoint is not None
    tuned = train_tables(
        folder,
        train={"from": str(first.checkpoint), "parts": "decoder", "ema": 0.0},
        output={"folder": str(folder / "tuned")},
    )
    tuned["model"].pop("residual_scale")  # type: ignore[attr-defined]
    second = train(parse(tuned))
    assert second.checkpoint is not None
    old, new = (safetensors.torch.load_file(t.checkpoint) for t in (first, second))
    assert all(
        torch.equal(old[name], new[name]) for name in old if name.startswith(("down.0", "shrink", "embed"))
    )
    assert not torch.equal(old["planes_out"], new["planes_out"])
    assert read_card(second.checkpoint).residual_scale == 0.5
    assert "started from model.safetensors" in read_card(second.checkpoint).training


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_with_the_weights_of_an_unbroken_run(folder: Path) -> None:
    quick = {"steps": 300, "validate_every": 100, "save_every": 10, "log_every": 10}
    train(parse(train_tables(folder, train=quick, validation=HELD)))
    other = train_tables(folder, train=quick, validation=HELD, output={"folder": str(folder / "killed")})
    path = written(folder, other)
    script = [sys.executable, str(Path(__file__).with_name("killed_training.py"))]
    arguments = [str(path), str(folder / "killed/log.jsonl"), "10"]
    done = subprocess.run([*script, *arguments], env=QUIET, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 5
    assert tensors(folder / "killed") == tensors(folder / "trained")
    one, two = (
        safetensors.torch.load_file(folder / name / "model.safetensors") for name in ("trained", "killed")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert losses(folder / "killed") == losses(folder / "trained")


def test_an_interrupt_saves_and_says_how_to_go_on(folder: Path) -> None:
    path = written(folder, train_tables(folder, train={"steps": 100_000}))
    process = started(path)
    while not (folder / "trained/state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rerun to resume" in said


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_the_whole_batch(folder: Path) -> None:
    train(parse(train_tables(folder, validation=HELD)))
    processes = train_tables(folder, validation=HELD, output={"folder": str(folder / "processes")})
    path = written(folder, processes)
    process = started(path, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    one, two = ([loss for _, loss in losses(folder / name)] for name in ("trained", "processes"))
    np.testing.assert_allclose(one, two, rtol=1e-4)
    states = [
        safetensors.torch.load_file(folder / name / "state.safetensors") for name in ("trained", "processes")
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-2, atol=1e-4)


# A limit on the size of files is a disk that fills: the state is larger than the checkpoint and the log.
FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
from vemdiffuse_pipe.cli.entry import main
main(["train", sys.argv[1]])
"""


def test_a_disk_that_fills_keeps_the_last_good_state_and_more_room_goes_on(folder: Path) -> None:
    train(parse(train_tables(folder, train={"lr_decay": "none", "steps": 3})))
    before = tensors(folder / "trained")
    path = written(folder, train_tables(folder, train={"lr_decay": "none"}))
    full = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(len(before) // 2)],
        env=QUIET,
        capture_output=True,
        text=True,
    )
    assert full.returncode == 1
    assert "no room is left there" in full.stderr.splitlines()[-1]
    assert "Traceback" not in full.stderr
    assert tensors(folder / "trained") == before
    assert not [p.name for p in (folder / "trained").iterdir() if p.name.startswith(".")]
    assert train(load(path)).outcome.step == 12


BAD = {
    "a key that is misspelt": ({"train": {"step": 10}}, "unknown key train.step; did you mean steps?"),
    "a key of a source": ({"source": {"urll": "x"}}, "unknown key source.0.urll; did you mean url?"),
    "an unknown kind": ({"model": {"kind": "gan"}}, "model.kind = 'gan'"),
    "a region that is too small": (
        {"source": {"region": [[0, 0, 0], [3, 48, 48]]}},
        "4 x 16 x 16 is the smallest",
    ),
    "a region outside": ({"source": {"region": [[0, 0, 0], [33, 48, 48]]}}, "no part of"),
    "a crop that does not fit the network": ({"data": {"crop_px": 18}}, "multiples of 4: [16, 16]"),
    "a ratio and an exact grid": ({"data": {"grid": "exact"}}, "leave data.ratio and data.ratios out"),
    "an exact grid of one that is isotropic": ({"data": {"grid": "exact", "ratio": None}}, 'axis = "yx"'),
    "no ratio": ({"data": {"ratio": None}}, "data.ratio is missing"),
    "two ratios": ({"data": {"ratios": {"3": 1.0}}}, "one says it all"),
    "a ratio that is not the volume's": (
        {"data": {"axis": "yx", "ratio": 11}, "source": {"voxel_size_nm": [50, 10, 10]}},
        "give 5",
    ),
    "gaps along z of thick sections": ({"source": {"voxel_size_nm": [50, 10, 10]}}, 'axis = "yx"'),
    "nothing left to validate on": ({"validation": {"share": 0.05}}, "leaves nothing to draw"),
    "nothing left to train on": ({"validation": {"share": 0.95}}, "less what is held back"),
    "two ways to hold back": (
        {"validation": {"share": 0.1, "region": [[0, 0, 0], [9, 9, 9]]}},
        "either a region",
    ),
    "validation of no source": ({"validation": {"share": 0.2, "source": 3}}, "validation.source = 3"),
    "patience without validation": ({"train": {"patience": 3}}, "needs a [validation] table"),
    "parts without a checkpoint": ({"train": {"parts": "decoder"}}, "needs train.from"),
    "no checkpoint there": ({"train": {"from": "nowhere.safetensors"}}, "no model 'nowhere.safetensors'"),
    "a checkpoint of other sizes": ({"train": {"from": "fib25-2026-11"}}, "the sizes of the checkpoint"),
    "a checkpoint of another kind": (
        {"train": {"from": "fib25-2026-11"}, "model": {"kind": "regression"}},
        "is a checkpoint of kind lean",
    ),
    "no such device": ({"train": {"device": "cuda:7"}}, "train.device"),
    "a volume that is not there": ({"source": {"url": "none.tif"}}, "none.tif does not exist"),
}


def without_none(tables: Mapping[str, object]) -> dict[str, object]:
    return {n: {k: v for k, v in t.items() if v is not None} for n, t in tables.items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    folder: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, said = BAD[case]
    tables = train_tables(folder, **changes)  # type: ignore[arg-type]
    path = written(folder, without_none(tables))
    assert run_command(["train", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert {p.name for p in folder.iterdir()} == {"volume.tif", "train.toml"}


def test_uint16_without_a_window_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(folder / "volume.tif", np.zeros((32, 48, 48), np.uint16), photometric="minisblack")
    assert run_command(["train", str(written(folder, train_tables(folder)))]) == 2
    assert "window" in capsys.readouterr().err


def test_a_state_of_another_network_is_refused(folder: Path) -> None:
    train(parse(train_tables(folder)))
    (folder / "trained/state.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="move it away"):
        train(parse(train_tables(folder)))


def test_a_missing_file_says_where_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["train", str(tmp_path / "none.toml")]) == 2
    assert "workflows/train_fib25.toml" in capsys.readouterr().err


def test_the_files_of_workflows_are_read() -> None:
    workflows = Path(__file__).parents[2] / "workflows"
    paths = sorted(workflows.glob("train_*.toml"))
    assert [path.stem for path in paths] == [
        "train_fib25",
        "train_fib25_a2i3dem",
        "train_fib25_anisotropic",
        "train_fib25_udim",
        "train_sstem",
        "train_stack",
    ]
    for path in paths:
        assert load(path).output.licence, path
        assert tomllib.loads(path.read_text())["validation"]
