"""Training: what is cut, that it learns, that it resumes exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vemdiffuse_pipe.errors import PlanError
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.training.gaps import GapSampler, TrainingVolume
from vemdiffuse_pipe.training.loop import Schedule, linear_between, train

SMALL = LeanConfig(channels=(8, 12), n_blocks=1, n_basis=4, n_embedding=16)


def _network() -> LeanNetwork:
    torch.manual_seed(0)
    return LeanNetwork(SMALL)


def _sampler(volume: np.ndarray, **options: object) -> GapSampler:
    return GapSampler([TrainingVolume.of(volume)], {3: 1.0}, crop_px=16, batch_size=4, **options)  # type: ignore[arg-type]


def _slope_along_z() -> np.ndarray:
    z = np.arange(24, dtype=np.uint8)[:, None, None] * 10
    return np.broadcast_to(z, (24, 40, 40)).copy()


def test_targets_lie_between_their_sections_in_order() -> None:
    batch = _sampler(_slope_along_z()).batch(0)
    assert batch.sections.shape == (4, 2, 16, 16)
    assert batch.targets.shape == (4, 2, 16, 16)
    assert torch.allclose(batch.targets, linear_between(batch.sections, 3), atol=1e-5)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    volume = np.random.default_rng(0).integers(0, 256, (24, 40, 40), dtype=np.uint8)
    a, b, c, d = (_sampler(volume, seed=s).batch(i) for s, i in [(1, 7), (1, 7), (1, 8), (2, 7)])
    assert torch.equal(a.targets, b.targets)
    assert not torch.equal(a.targets, c.targets)
    assert not torch.equal(a.targets, d.targets)


def test_a_volume_that_is_too_small_is_refused_with_the_size_that_would_do() -> None:
    with pytest.raises(PlanError, match=r"\(4, 16, 16\)"):
        _sampler(np.zeros((3, 40, 40), np.uint8))


def test_interrupted_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 256, (24, 40, 40), dtype=np.uint8)
    options = {"residual_scale": 0.5, "device": torch.device("cpu"), "save_every": 3}
    schedule = Schedule(n_steps=7, n_warmup=2)
    unbroken = train(_network(), _sampler(volume), schedule, folder=tmp_path / "a", **options)  # type: ignore[arg-type]

    class KilledError(Exception):
        pass

    def stop_at_5(record: dict[str, float]) -> None:
        if record["step"] == 5:
            raise KilledError

    with pytest.raises(KilledError):
        train(_network(), _sampler(volume), schedule, folder=tmp_path / "b", log=stop_at_5, **options)  # type: ignore[arg-type]
    resumed = train(_network(), _sampler(volume), schedule, folder=tmp_path / "b", **options)  # type: ignore[arg-type]
    for (name, a), b in zip(unbroken.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_network_learns_a_residual_that_linear_interpolation_leaves(tmp_path: Path) -> None:
    """Planes that bulge above their sections: the loss falls to well under that of predicting nothing."""
    z = (np.arange(24) % 3 != 0)[:, None, None] * 80 + 100
    volume = np.broadcast_to(z, (24, 40, 40)).astype(np.uint8).copy()
    losses: list[float] = []
    sampler = GapSampler([TrainingVolume(volume[:4], 100.0, 40.0)], {3: 1.0}, crop_px=16, batch_size=8)
    train(
        _network(),
        sampler,
        Schedule(n_steps=150, lr=5e-3, n_warmup=5),
        residual_scale=1.0,
        folder=tmp_path,
        device=torch.device("cpu"),
        log=lambda record: losses.append(record["loss"]),
    )
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])
