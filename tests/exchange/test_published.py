"""Checkpoints of the published program become ours; what is not such a checkpoint is refused by name."""

from __future__ import annotations

import os
import pickle
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.errors import ModelError
from vemdiffuse_pipe.exchange.published import SCHEDULES, import_checkpoint, renamed, state_dict_of
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.models.checkpoint import load_network
from vemdiffuse_pipe.models.sizes.udim import UdimConfig
from vemdiffuse_pipe.models.udim import UdimNetwork

SMALL = UdimConfig(inner=8, n_groups=8, head=8)


def a_block(name: str, c_in: int, c_out: int, n_embedding: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.in_layers.0.weight": (c_in,),
        f"{name}.in_layers.2.weight": (c_out, c_in, 3, 3),
        f"{name}.emb_layers.1.weight": (2 * c_out, n_embedding),
        f"{name}.out_layers.0.weight": (c_out,),
        f"{name}.out_layers.3.weight": (c_out, c_out, 3, 3),
    }
    return shapes | ({f"{name}.skip_connection.weight": (c_out, c_in, 1, 1)} if c_in != c_out else {})


def published(inner: int = 32) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights in a published checkpoint, from the network's description."""
    widths, n = tuple(inner * m for m in (1, 2, 4, 8)), 4 * inner
    shapes: dict[str, tuple[int, ...]] = {"input_blocks.0.0.weight": (inner, 3, 3, 3)}
    for mlp in ("cond_embed", "channel_embed"):
        shapes |= {f"{mlp}.0.weight": (n, inner), f"{mlp}.2.weight": (n, n)}
    number, skips, c = 1, [inner], inner
    for level, width in enumerate(widths):
        for c_in, c_out in [(c, width), (width, width)] + ([(width, width)] if level < 3 else []):
            shapes |= a_block(f"input_blocks.{number}.0", c_in, c_out, 2 * n)
            skips.append(c_out)
            number += 1
        c = width
    shapes |= a_block("middle_block.0", c, c, 2 * n) | a_block("middle_block.2", c, c, 2 * n)
    shapes |= {"middle_block.1.norm.weight": (c,), "middle_block.1.qkv.weight": (3 * c, c, 1)}
    shapes |= {"middle_block.1.proj_out.weight": (c, c, 1)}
    number = 0
    for level in (3, 2, 1, 0):
        for i in range(3):
            shapes |= a_block(f"output_blocks.{number}.0", c + skips.pop(), widths[level], 2 * n)
            c = widths[level]
            if level and i == 2:
                shapes |= a_block(f"output_blocks.{number}.1", c, c, 2 * n)
            number += 1
    shapes |= {"out.0.weight": (inner,), "out.2.weight": (1, inner, 3, 3)}
    biases = {name.replace(".weight", ".bias"): shape[:1] for name, shape in shapes.items()}
    return {f"denoise_fn.{name}": shape for name, shape in (shapes | biases).items()}


@cache
def state(inner: int = 8, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in published(inner).items()}
    return tensors | {name: torch.ones(1000) for name in SCHEDULES}


def written(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "7_Network_ema.pth")
    return tmp_path / "7_Network_ema.pth"


def test_the_names_and_shapes_are_those_of_16_615_873_parameters() -> None:
    sizes = [torch.Size(shape).numel() for shape in published().values()]
    assert sum(sizes) == 16_615_873


@pytest.mark.slow
def test_a_published_checkpoint_becomes_a_model_that_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, output = written(tmp_path, state(32)), tmp_path / "out.safetensors"
    assert run_command(["models", "import", str(file), "--ratio", "6", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^kind +udim\b", printed, re.MULTILINE)
    assert re.search(r"^ratio +6\b", printed, re.MULTILINE)
    card = find_card(str(output))
    assert (card.min_ratio, card.max_ratio, card.tile_px) == (6, 6, 256)
    assert card.training == "imported from 7_Network_ema.pth"
    enter = load_network(output, card).state_dict()["enter.weight"]
    assert torch.equal(enter, state(32)["denoise_fn.input_blocks.0.0.weight"])


def test_every_tensor_finds_its_place(tmp_path: Path) -> None:
    theirs = state_dict_of(written(tmp_path, state()), True)
    network = UdimNetwork(SMALL)
    ours = renamed(theirs, network, tmp_path)
    network.load_state_dict(ours)
    assert len(ours) == len(published())
    pairs = {
        "down.2.conv_in.weight": "input_blocks.3.0.in_layers.2.weight",
        "up.2.film.bias": "output_blocks.2.0.emb_layers.1.bias",
        "up.3.conv_out.weight": "output_blocks.2.1.out_layers.3.weight",
        "up.14.skip.weight": "output_blocks.11.0.skip_connection.weight",
        "attention.qkv.bias": "middle_block.1.qkv.bias",
        "embed_gamma.0.bias": "cond_embed.0.bias",
        "embed_layer.2.weight": "channel_embed.2.weight",
        "leave.bias": "out.2.bias",
    }
    for name, theirs_name in pairs.items():
        assert torch.equal(ours[name], state()[f"denoise_fn.{theirs_name}"]), name
    qkv = state()["denoise_fn.middle_block.1.qkv.weight"]
    assert torch.equal(ours["attention.qkv.weight"][..., 0], qkv)


@pytest.mark.parametrize(("averaged", "seed"), [(True, 1), (False, 0)])
def test_the_state_that_is_asked_for_is_taken(tmp_path: Path, averaged: bool, seed: int) -> None:
    file = written(tmp_path, {"network": state(8, 0), "ema": state(8, 1), "epoch": 7})
    taken = state_dict_of(file, averaged)
    assert torch.equal(taken["out.2.bias"], state(8, seed)["denoise_fn.out.2.bias"])


class Malicious:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("writer", ["pickle", "torch", "torch, old"])
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, writer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trap, file, output = tmp_path / "trap", tmp_path / "evil.pth", tmp_path / "out.safetensors"
    content = {"denoise_fn.out.0.weight": Malicious(trap)}
    if writer == "pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=writer == "torch")
    assert run_command(["models", "import", str(file), "--ratio", "6", "--output", str(output)]) == 2
    assert "would run code" in capsys.readouterr().err
    assert not trap.exists()
    assert not output.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))
    assert trap.exists(), "the trap is none"


def changed(name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    tensors = dict(state())
    tensors.pop(name, None)
    return tensors if tensor is None else tensors | {name: tensor}


REFUSED: dict[str, tuple[object, str]] = {
    "another shape": (
        lambda: changed("denoise_fn.out.2.weight", torch.zeros(2, 8, 3, 3)),
        r"out\.2\.weight has the shape \(2, 8, 3, 3\); needed: \(1, 8, 3, 3\)",
    ),
    "a tensor less": (lambda: changed("denoise_fn.out.2.bias", None), r"lacks out\.2\.bias"),
    "a tensor more": (lambda: changed("denoise_fn.extra.weight", torch.zeros(1)), r"holds extra\.weight"),
    "not a number": (
        lambda: changed("denoise_fn.out.2.bias", torch.full((1,), torch.nan)),
        r"out\.2\.bias holds what is no finite number",
    ),
    "the network for images": (
        lambda: {name: tensor for name, tensor in state().items() if "channel_embed" not in name},
        r"lacks channel_embed.* is --kind right",
    ),
    "no state": (lambda: [1, 2], "holds a list"),
    "nothing": (dict, "lacks"),
    "states by other names": (lambda: {"a": {}, "b": {}}, "holds the states a, b"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_such_checkpoint_is_refused_by_name(tmp_path: Path, case: str) -> None:
    make, said = REFUSED[case]
    file = written(tmp_path, make())  # type: ignore[operator]
    with pytest.raises(ModelError, match=said):
        renamed(state_dict_of(file, True), UdimNetwork(SMALL), file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(100), b"\x80\x02", bytes(1000), b"hello\n"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.pth"):
        import_checkpoint(tmp_path / "x.pth", tmp_path / "y", "udim", 6, averaged=True)


def test_what_must_be_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs --ratio"):
        import_checkpoint(tmp_path / "x", tmp_path / "y", "udim", None, averaged=True)
    with pytest.raises(ModelError, match="no file"):
        import_checkpoint(tmp_path / "x", tmp_path / "y", "udim", 6, averaged=True)
    (tmp_path / "y").touch()
    with pytest.raises(ModelError, match="exists already"):
        import_checkpoint(tmp_path / "x", tmp_path / "y", "udim", 6, averaged=True)


def test_every_parameter_has_a_name_there() -> None:
    with torch.device("meta"):
        network = UdimNetwork(UdimConfig())
    assert len(published()) == len(network.state_dict())
