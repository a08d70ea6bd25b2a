"""`vemdiffuse train FILE`, every kind of network: it learns, its checkpoint renders, it goes on exactly."""

from __future__ import annotations

import json
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from small_training import smooth_stack, train_tables

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.errors import InputError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.models.card import read_card
from vemdiffuse_pipe.models.restoration import enlarged
from vemdiffuse_pipe.storage import open_source
from vemdiffuse_pipe.training import pair_examples
from vemdiffuse_pipe.training.examples import training_data
from vemdiffuse_pipe.training.run import train
from vemdiffuse_pipe.training.settings import TrainFile, parse

UDIM = {"inner": 8, "multipliers": [1, 2], "n_blocks": 1, "n_groups": 4, "head": 8, "steps": 2}
GAP = {"channels": [8, 12], "n_blocks": 1, "n_basis": 4, "n_embedding": 16}
MODELS: dict[str, dict[str, object]] = {
    "udim": UDIM,
    "cddpm": {**UDIM, "difficulty": True},
    "a2i3dem": {"channels": [8, 12], "n_blocks": 1, "window": 4, "head": 4, "has_both_axes": True},
    "sru3d": {"channels": [4, 6], "n_convolutions": 1, "tile_px": 64},
    "estimator": {**GAP, "section_thickness_nm": 30.0},
    "sampler": {**GAP, "steps": 2},
    "rcan": {"task": "denoise", "n_groups": 1, "n_blocks": 2, "channels": 8, "reduction": 4},
    "pssr": {"task": "superres", "channels": [8, 12], "n_blocks": [1, 1]},
}
HELD = {"share": 0.4, "gaps": 1, "crop_px": 16}
# Of the loss at first, what is left after 60 steps: at most.
LEFT = {
    "udim": 0.6,
    "cddpm": 0.6,
    "a2i3dem": 0.9,
    "sru3d": 0.7,
    "estimator": 0.8,
    "sampler": 0.97,
    "rcan": 0.9,
    "pssr": 0.5,
}


def tables_of(kind: str, folder: Path, **changes: dict[str, object]) -> dict[str, Any]:
    """A training file for a kind of network on `smooth_stack`."""
    tables: dict[str, Any] = train_tables(folder, **{"model": {}, **changes})
    tables["model"] = {"kind": kind, **MODELS[kind], **changes.get("model", {})}
    if kind == "a2i3dem":
        tables["source"]["voxel_size_nm"] = [30, 10, 10]
        tables["data"]["axis"] = "yx"
    if "task" in tables["model"]:
        del tables["data"]["ratio"]
        tables["data"] |= {"peak": 300.0}
    else:
        tables["data"] |= {"blur": 0.2, "noise": 0.1}
    tables["data"] |= changes.get("data", {})
    return tables


def parsed(kind: str, folder: Path, **changes: dict[str, object]) -> TrainFile:
    return parse(tables_of(kind, folder, **changes))


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "trained/log.jsonl").read_text().splitlines()]
    return [r["loss"] for r in records if "loss" in r]


def tensors(folder: Path) -> bytes:
    """The tensors of a state: its header says how long it took."""
    state = (folder / "state.safetensors").read_bytes()
    return state[8 + int.from_bytes(state[:8], "little") :]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    smooth_stack(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", MODELS)
def test_it_learns_and_its_checkpoint_is_run(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"steps": 60, "lr": 3e-3, "log_every": 6, "validate_every": 60, "lr_decay": "none", "ema": 0.9}
    trained = train(parsed(kind, folder, train=quick, validation={**HELD, "axis": "y"}))
    found = losses(folder)
    assert np.mean(found[-2:]) < LEFT[kind] * found[0]
    assert trained.checkpoint is not None
    assert trained.outcome.best is not None
    card = read_card(trained.checkpoint)
    assert card.kind == kind
    assert ("fixed random filters" in card.training) == (kind == "a2i3dem")

    monkeypatch.chdir(folder)
    tifffile.imwrite("thick.tif", tifffile.imread("volume.tif")[:9:3], photometric="minisblack")
    task = f'task = "{card.task}"' if card.task != "isotropic" else "ratio = 3"
    Path("run.toml").write_text(
        '[source]\nurl = "thick.tif"\nvoxel_size_nm = [30, 10, 10]\n[output]\nurl = "out.zarr"\n'
        f'[model]\nname = "trained/model.safetensors"\n{task}\n'
    )
    assert run_command(["run", "run.toml"]) == 0
    em = open_source("out.zarr/em")
    assert em.spec.shape == {"rcan": (3, 48, 48), "pssr": (3, 96, 96)}.get(kind, (7, 48, 48))
    assert em.read(Box((0, 0, 0), em.spec.shape)).std() > 5


@pytest.mark.parametrize("kind", ["udim", "a2i3dem", "rcan", "sampler"])
def test_training_that_goes_on_ends_with_the_weights_of_an_unbroken_one(folder: Path, kind: str) -> None:
    quick = {"lr_decay": "none", "validate_every": 100, "steps": 6}
    train(parsed(kind, folder, train=quick))
    torch.rand(7)  # whatever else was drawn in between
    for steps in (2, 3, 6):
        other = {"folder": str(folder / "broken")}
        train(parsed(kind, folder, train={**quick, "steps": steps}, output=other))
    assert tensors(folder / "broken") == tensors(folder / "trained")


def test_fine_tuning_udim_leaves_its_encoder_as_it_was(folder: Path) -> None:
    first = train(parsed("udim", folder))
    tune = {"from": str(first.checkpoint), "parts": "decoder", "ema": 0.0}
    second = train(parsed("udim", folder, train=tune, output={"folder": str(folder / "tuned")}))
    assert first.checkpoint is not None
    assert second.checkpoint is not None
    old, new = (safetensors.torch.load_file(t.checkpoint) for t in (first, second))
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert "leave.weight" in changed
    assert not [name for name in changed if name.startswith(("enter", "down", "embed"))]


def test_no_pair_holds_a_voxel_that_is_held_back(folder: Path) -> None:
    stack = np.random.default_rng(0).integers(1, 100, (8, 64, 64), dtype=np.uint8)
    stack[2:6, 40:60, 30:50] = 200
    tifffile.imwrite(folder / "volume.tif", stack, photometric="minisblack")
    held = {"region": [[2, 40, 30], [6, 60, 50]], "gaps": 4, "crop_px": 8}
    for kind in ("rcan", "pssr"):
        peak = 1e6 if kind == "rcan" else None
        file = parsed(kind, folder, validation=held, data={"peak": peak, "crop_px": 16})
        source = open_source(file.source[0].url, voxel_size_nm=(10, 10, 10))
        made = pair_examples.with_raw(file, training_data(file, [source]), [None])
        batches = pair_examples.batches(file, made)
        mean, std = made.volumes[0].contrast
        highest = max(float(batches.batch(i).targets.max()) for i in range(40)) * std + mean
        batches.close()
        assert highest < 150
        seen = pair_examples.validation(file, made, torch.device("cpu")) if kind == "pssr" else None
        assert seen is None or all(
            (gap.truth == 200).all() and (gap.sections == 200).all() for gap in seen.gaps
        )


def test_raw_and_clean_that_are_held_back_are_of_one_place(folder: Path) -> None:
    y, x = np.mgrid[:60, :64]
    stack = np.stack([(y + 2 * x + 10 * z).astype(np.uint8) for z in range(3)])
    tifffile.imwrite(folder / "volume.tif", stack, photometric="minisblack")
    held = {"region": [[0, 25, 20], [3, 60, 64]], "gaps": 6, "crop_px": 16}
    file = parsed("pssr", folder, validation=held, data={"peak": None})
    source = open_source(file.source[0].url, voxel_size_nm=(10, 10, 10))
    made = pair_examples.with_raw(file, training_data(file, [source]), [None])
    for gap in pair_examples.validation(file, made, torch.device("cpu")).gaps:
        whole = enlarged(torch.from_numpy(gap.sections.astype(np.float32)), 2)
        assert np.abs(whole.numpy() - gap.truth).max() <= 1


@pytest.mark.parametrize("kind", ["rcan", "pssr"])
def test_raw_volumes_that_are_stated_are_what_is_given(folder: Path, kind: str) -> None:
    """A raw volume that is the clean one, inverted: what is given falls where what is wanted rises."""
    scale = 2 if kind == "pssr" else 1
    clean = np.broadcast_to(np.arange(10, 138, 2, dtype=np.uint8), (4, 64, 64)).copy()
    tifffile.imwrite(folder / "volume.tif", clean, photometric="minisblack")
    raw = 255 - clean[:, ::scale, ::scale]
    tifffile.imwrite(folder / "raw.tif", raw, photometric="minisblack")
    file = parsed(
        kind, folder, source={"raw": str(folder / "raw.tif"), "contrast": [200, 30], "bad_sections": "keep"}
    )
    sources = [open_source(str(folder / n), voxel_size_nm=(10, 10, 10)) for n in ("volume.tif", "raw.tif")]
    made = pair_examples.with_raw(file, training_data(file, sources[:1]), sources[1:])
    with closing(pair_examples.batches(file, made)) as batches:
        batch = batches.batch(0)
    slopes = [t.diff(dim=-1).mean(dim=(1, 2, 3)) for t in (batch.sections, batch.targets)]
    torch.testing.assert_close(slopes[0], -slopes[1], atol=0.01, rtol=0.1)
    assert train(file).checkpoint is not None
    tifffile.imwrite(folder / "raw.tif", raw[:, 2:], photometric="minisblack")
    with pytest.raises(InputError, match=r"voxels; for .* are needed"):
        train(parsed(kind, folder, source={"raw": str(folder / "raw.tif"), "bad_sections": "keep"}))


BAD: dict[str, tuple[str, dict[str, dict[str, object]], str]] = {
    "a size of another kind": (
        "udim",
        {"model": {"window": 8}},
        "model.window is no size of a network of kind",
    ),
    "a size that follows from the data": ("udim", {"model": {"tile_px": 64}}, "model.tile_px is no size"),
    "a size that no network has": ("udim", {"model": {"n_groups": 5}}, "in 5 groups"),
    "a size of another form": ("rcan", {"model": {"channels": [8, 8]}}, "model.channels: input should be"),
    "levels without blocks": ("pssr", {"model": {"n_blocks": [1]}}, "model.n_blocks"),
    "a scale without residuals": ("a2i3dem", {"model": {"residual_scale": 1.0}}, "does not go with"),
    "a difficulty without samples": ("sru3d", {"model": {"difficulty": True}}, "does not go with"),
    "features without textures": ("sru3d", {"model": {"features": "x"}}, "does not go with"),
    "features that are not there": ("a2i3dem", {"model": {"features": "none.safetensors"}}, "cannot be read"),
    "two ratios for one": ("udim", {"data": {"ratio": None, "ratios": {3: 1.0, 4: 1.0}}}, "give data.ratio"),
    "a tile that is not square": ("udim", {"data": {"crop_px": [16, 32]}}, "which is square"),
    "a crop that does not fit": ("a2i3dem", {"data": {"crop_px": 18}}, "multiples of 8: [16]"),
    "z in no plane": ("a2i3dem", {"data": {"z": "mixed"}}, "says nothing to"),
    "a gap for a plain network": (
        "rcan",
        {"model": {"task": "isotropic"}, "data": {"ratio": 3}},
        "restores sections",
    ),
    "a section for three dimensions": ("sru3d", {"model": {"task": "denoise"}}, "fills gaps only"),
    "blur of sections": ("rcan", {"data": {"blur": 0.5}}, "data.blur is for gaps"),
    "a grid of sections": ("rcan", {"data": {"grid": "exact"}}, "is for gaps"),
    "a ratio of sections": ("rcan", {"data": {"ratio": 3}}, "leave data.axis and data.ratio out"),
    "a raw volume of gaps": ("udim", {"source": {"raw": "raw.tif"}}, "source.raw"),
    "no raw volume": ("rcan", {"data": {"peak": None}}, "give source.raw, the raw volume, or data.peak"),
    "electrons without end": ("rcan", {"data": {"peak": 1e21}}, "data.peak"),
    "tiles of odd sizes": (
        "udim",
        {"model": {"task": "superres", "multipliers": [1]}, "data": {"ratio": None}},
        "give it more levels",
    ),
    "nothing to restore": ("rcan", {"validation": {"share": 0.95, "axis": "y"}}, "has no room"),
    "nothing to validate on": ("rcan", {"validation": {"share": 0.1, "axis": "y"}}, "holds no crop"),
    "no part to tune": (
        "rcan",
        {"train": {"parts": "decoder", "from": "first.safetensors"}},
        "has no decoder",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_a_kind_is_one_sentence(folder: Path, case: str) -> None:
    kind, changes, said = BAD[case]
    if "from" in changes.get("train", {}):
        first = train(parsed(kind, folder, output={"folder": str(folder / "first")}))
        changes = {"train": {**changes["train"], "from": str(first.checkpoint)}}
    tables = tables_of(kind, folder, **changes)
    with pytest.raises(InputError) as caught:
        train(parse(tables))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "trained").exists()


def test_the_run_files_of_kinds_describe_small_networks() -> None:
    """What stands in the comments of workflows/ about sizes is what the networks have."""
    workflows = Path(__file__).parents[2] / "workflows"
    for name in ("train_fib25_udim", "train_fib25_a2i3dem"):
        table = parse(tomllib.loads((workflows / f"{name}.toml").read_text())).model
        assert table.kind in name
