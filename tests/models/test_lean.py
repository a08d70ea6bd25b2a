"""The lean network is what its card says: context, tile-exactness, operations, any ratio."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vemdiffuse_pipe.errors import ConfigError, ModelError
from vemdiffuse_pipe.models.card import (
    CUBIC,
    EARLIER,
    ModelCard,
    find_card,
    find_checkpoint,
    read_card,
    shipped_models,
)
from vemdiffuse_pipe.models.checkpoint import load_model, load_network, save_checkpoint
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork

SMALL = LeanConfig(channels=(8, 12, 16), n_blocks=1, n_basis=4, n_embedding=16)
CARD = ModelCard("small", "lean", "", True, True, 0, 0, 0, 2, 12, samples=2, steps=3, residual_scale=0.4)


def _network(config: LeanConfig = SMALL, dtype: torch.dtype = torch.float32) -> LeanNetwork:
    """A network whose every weight matters (those that start at zero are drawn too)."""
    torch.manual_seed(0)
    network = LeanNetwork(config)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return network.to(dtype).eval()


def _forward(network: LeanNetwork, noisy: Tensor, sections: Tensor) -> Tensor:
    n = noisy.shape[1]
    positions = torch.arange(1, n + 1, dtype=noisy.dtype) / (n + 1)
    out: Tensor = network(
        noisy, sections, positions, float(n + 1), torch.zeros(len(noisy), dtype=noisy.dtype)
    )
    return out


@pytest.mark.parametrize("n_planes", [1, 4, 11])
def test_it_serves_any_number_of_planes(n_planes: int) -> None:
    out = _forward(_network(), torch.randn(2, n_planes, 16, 24), torch.randn(2, 2, 16, 24))
    assert out.shape == (2, n_planes, 16, 24)
    assert out.isfinite().all()


def test_an_input_changes_outputs_up_to_the_declared_context_and_none_beyond() -> None:
    network = _network()
    reach, size = network.context_px, 8 * (2 * network.context_px // 8 + 4)
    noisy, sections = torch.randn(1, 2, size, size), torch.randn(1, 2, size, size)
    at = size // 2
    with torch.no_grad():
        sections_b = sections.clone()
        sections_b[..., at, at] += 100
        changed = (_forward(network, noisy, sections) != _forward(network, noisy, sections_b)).any(dim=1)[0]
    rows = changed.any(dim=1).nonzero().flatten() - at
    assert -reach <= int(rows.min())
    assert int(rows.max()) <= reach
    assert max(-int(rows.min()), int(rows.max())) > reach / 2


def test_a_tile_gives_what_the_whole_plane_gives_beyond_its_context() -> None:
    network = _network(dtype=torch.float64)
    margin = 8 * -(-network.context_px // 8)
    size, tile = 4 * margin, 3 * margin
    noisy = torch.randn(1, 3, size, size, dtype=torch.float64)
    sections = torch.randn(1, 2, size, size, dtype=torch.float64)
    with torch.no_grad():
        whole = _forward(network, noisy, sections)
        part = _forward(network, noisy[..., :tile, :tile], sections[..., :tile, :tile])
    assert (whole - part.new_zeros(1)).abs().max() > 0.1
    inside = slice(0, tile - margin)
    assert (whole[..., inside, inside] - part[..., inside, inside]).abs().max() < 1e-9


@pytest.mark.parametrize(("config", "n_planes"), [(LeanConfig(), 4), (LeanConfig(), 10), (SMALL, 1)])
def test_the_card_counts_the_operations_that_torch_counts(
    config: LeanConfig, n_planes: int, tmp_path: Path
) -> None:
    network = _network(config)
    card = save_checkpoint(tmp_path / "m.safetensors", network, CARD)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _forward(network, torch.zeros(1, n_planes, 64, 64), torch.zeros(1, 2, 64, 64))
    assert card.flop_per_pixel(n_planes) == pytest.approx(counter.get_total_flops() / 64**2, rel=0.05)


def test_a_checkpoint_comes_back_with_its_card_and_weights(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    network = _network()
    card = save_checkpoint(path, network, CARD)
    assert read_card(path) == card
    assert find_card(str(path)) == card
    assert (card.context_px, card.multiple_px) == (network.context_px, 8)
    again = load_network(path, card)
    for (name, a), b in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a.half().float(), b), name


def _saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "small.safetensors", _network(), CARD)
    return tmp_path / "small.safetensors"


def test_a_pickle_is_refused_as_a_pickle(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "zip.pt")
    torch.save({"w": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("zip.pt", "old.pt"):
        with pytest.raises(ModelError, match="pickle"):
            find_card(str(tmp_path / name))


@pytest.mark.parametrize("keep", [0, 5, 8, 40, 3000, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, keep: int) -> None:
    path = _saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"truncated|not a safetensors"):
        load_model(str(path), steps=1, contrast=(1, 1), precision="float32")


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="sha256"):
        load_model(str(path), steps=1, contrast=(1, 1), precision="float32")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b'{"a": 1}',
        b'{"a": {"data_offsets": [0]}}',
        b"[" * 3000,
        b'{"__metadata__": {"card": "{}"}}',
    ],
)
def test_a_header_of_another_kind_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError):
        find_card(str(path))


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match="linear, cubic"):
        find_card("cubik")
    assert find_card("cubic") == CUBIC
    assert set(shipped_models()) >= {"linear", "cubic"}


def test_the_one_pass_reference_is_the_earlier_default_evaluated_once() -> None:
    one_pass, earlier = find_card("one-pass"), find_card(EARLIER["default"])
    assert find_checkpoint("one-pass") == find_checkpoint(EARLIER["default"])
    assert (one_pass.samples, one_pass.steps) == (1, 1)
    assert replace(one_pass, name=earlier.name, samples=earlier.samples, steps=earlier.steps) == earlier


def _with_card(path: Path, **changes: object) -> str:
    """The checkpoint at `path`, its card changed, the weights as they were."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    card = {**json.loads(header["__metadata__"]["card"]), **changes}
    header["__metadata__"]["card"] = json.dumps(card)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return str(path)


CARDS: dict[str, object] = {
    "min_ratio": "two",
    "max_ratio": 1,
    "steps": "x",
    "samples": 0,
    "multiple_px": 0,
    "context_px": -1,
    "reach_sections": 3,
    "residual_scale": float("nan"),
    "sizes": {"channels": [8, "12"]},
    "sampler": "euler",
    "tile_px": 7,
    "tile_deviation": -1,
    "channels": [8, 12],
    "is_stochastic": False,
    "is_tile_exact": "yes",
    "name": None,
    "kind": "interpolation",
    "licence": "\ud800",
    "colour": "red",
}


@pytest.mark.parametrize("field", CARDS)
def test_a_card_that_claims_what_no_model_is_is_refused(tmp_path: Path, field: str) -> None:
    checkpoint = _with_card(_saved(tmp_path), **{field: CARDS[field]})
    with pytest.raises(ModelError, match=r"model card|of kind 'interpolation'"):
        find_card(checkpoint)


@pytest.mark.parametrize("card", ["[]", "{}", "7", "[" * 3000, "1" * 5000, "\ud800"])
def test_what_is_no_card_is_refused(tmp_path: Path, card: str) -> None:
    header = json.dumps({"__metadata__": {"card": card}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="model card"):
        find_card(str(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("field", ["context_px", "multiple_px"])
def test_a_card_that_is_not_of_its_network_is_refused(tmp_path: Path, field: str) -> None:
    checkpoint = _with_card(_saved(tmp_path), **{field: 16})
    with pytest.raises(ModelError, match=f"{field} 16"):
        load_model(checkpoint, steps=1, contrast=(1, 1), precision="float32")


@pytest.mark.parametrize("device", ["banana", "meta", "cuda:99"])
@pytest.mark.parametrize("model", ["linear", "default"])
def test_a_device_that_cannot_be_used_is_named(model: str, device: str) -> None:
    with pytest.raises(ConfigError, match=f"'{device}' cannot be used here"):
        load_model(model, steps=1, contrast=(1, 1), precision="float32", device=device)
