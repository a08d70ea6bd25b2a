"""Objectives, the loop and its state: it learns, it goes on exactly, it ends when it should."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import SMALL, batches, network, noise, volume
from torch import nn

from vemdiffuse_pipe.errors import ModelError, TrainingError
from vemdiffuse_pipe.models.lean import LeanNetwork
from vemdiffuse_pipe.testing import ArraySource
from vemdiffuse_pipe.training.gaps import Batches, GapBatch
from vemdiffuse_pipe.training.journal import Journal, curve
from vemdiffuse_pipe.training.kinds import build, freeze
from vemdiffuse_pipe.training.loop import TrainingJob, TrainingOutcome, lr_at, train
from vemdiffuse_pipe.training.objectives.draws import Draws, Objective
from vemdiffuse_pipe.training.objectives.residual import Regression, ResidualDiffusion, difficulty_aware
from vemdiffuse_pipe.training.prefetch import Prefetched
from vemdiffuse_pipe.training.processes import ProcessGroup
from vemdiffuse_pipe.training.settings import NetworkTable, TrainTable

DIFFUSION = ResidualDiffusion(0.5, autocast=False)
CPU = ProcessGroup(torch.device("cpu"))
TABLE = TrainTable(
    steps=8, batch_size=4, warmup=2, precision="float32", validate_every=4, save_every=2, log_every=1
)


class Listening:
    """Hears everything; validates with the scores that it is given; is interrupted at a step."""

    def __init__(self, scores: Mapping[int, float] = {}, interrupted_at: int = -1) -> None:
        self.scores, self.interrupted_at = scores, interrupted_at
        self.records: list[Mapping[str, object]] = []
        self.kept: dict[int, list[torch.Tensor]] = {}

    def start(self, step: int) -> None:
        self.records.append({"step": step, "begun": True})

    def on_record(self, record: Mapping[str, object]) -> None:
        self.records.append(record)

    def validate(self, average: nn.Module, step: int) -> float | None:
        return self.scores.get(step)

    def keep(self, average: nn.Module, step: int) -> None:
        self.kept[step] = [p.clone() for p in average.parameters()]

    def is_interrupted(self) -> bool:
        return any(r["step"] == self.interrupted_at for r in self.records)

    @property
    def losses(self) -> list[float]:
        return [float(r["loss"]) for r in self.records if "loss" in r]  # type: ignore[arg-type]


def run(
    folder: Path,
    made: Batches,
    *,
    table: TrainTable = TABLE,
    trained: LeanNetwork | None = None,
    objective: Objective = DIFFUSION,
    watcher: Listening | None = None,
    lr: float = 1e-3,
    **options: object,
) -> TrainingOutcome:
    job = TrainingJob(  # type: ignore[arg-type]
        trained or network(), objective, made, table, folder / "state.safetensors", {"a": 1}, lr, **options
    )  # type: ignore[arg-type]
    return train(job, CPU, watcher or Listening())


def weights(folder: Path) -> bytes:
    return (folder / "state.safetensors").read_bytes()


def without_times(state: bytes) -> bytes:
    """The tensors of a state: its header says how long it took."""
    return state[8 + int.from_bytes(state[:8], "little") :]


def grey_noise() -> Batches:
    return batches(replace(volume(noise((24, 40, 40))), contrast=(128.0, 70.0)))


def test_interrupted_training_ends_with_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    with closing(grey_noise()) as made:
        run(tmp_path / "a", made)
    for interrupted_at in (3, 5, -1):
        with closing(grey_noise()) as made:
            outcome = run(tmp_path / "b", made, watcher=Listening(interrupted_at=interrupted_at))
        assert (outcome.stopped, outcome.step) == (
            ("interrupted", interrupted_at) if interrupted_at > 0 else ("", 8)
        )
    assert without_times(weights(tmp_path / "a")) == without_times(weights(tmp_path / "b"))


@pytest.mark.parametrize(
    "objective", [ResidualDiffusion(1.0, False), ResidualDiffusion(1.0, False, True), Regression(1.0, False)]
)
def test_a_network_learns_a_residual_that_linear_interpolation_leaves(tmp_path: Path, objective) -> None:
    """Planes that bulge above their sections: the loss falls to well under that of predicting nothing."""
    z = (np.arange(24) % 3 != 0)[:, None, None] * 80 + 100
    bulging = ArraySource(np.broadcast_to(z, (24, 40, 40)).astype(np.uint8)[:4].copy())
    learner, watcher = network(difficulty=True), Listening()
    table = TABLE.model_copy(update={"steps": 120, "warmup": 5, "log_every": 5, "batch_size": 8})
    made = batches(replace(volume(bulging), contrast=(100.0, 40.0)), batch_size=8)
    with closing(made):
        run(tmp_path, made, table=table, trained=learner, objective=objective, watcher=watcher, lr=5e-3)
    assert np.mean(watcher.losses[-3:]) < 0.6 * watcher.losses[0]


def test_difficulty_is_least_where_it_equals_the_error() -> None:
    s = torch.linspace(-1, 1, 2001)
    error = torch.tensor(0.49)
    best = s[difficulty_aware(error, s).argmin()]
    assert torch.exp(2 * best) == pytest.approx(0.49, rel=0.01)


def test_the_second_head_changes_neither_the_first_nor_the_checkpoint() -> None:
    with_head, plain = network(difficulty=True), network()
    with_head.load_state_dict({**with_head.state_dict(), **plain.state_dict()})
    arguments = (
        torch.randn(1, 2, 8, 8),
        torch.randn(1, 2, 8, 8),
        torch.tensor([1 / 3, 2 / 3]),
        3.0,
        torch.zeros(1),
    )
    assert torch.equal(with_head(*arguments, 2)[:, :2], plain(*arguments))
    assert with_head(*arguments, 2).shape == (1, 4, 8, 8)
    trainee = build(NetworkTable(difficulty=True), TABLE, SMALL, {3: 1.0}, 0.5)
    assert trainee.network.state_dict().keys() == with_head.state_dict().keys()
    assert trainee.exported(trainee.network).state_dict().keys() == plain.state_dict().keys()


def test_processes_share_the_draws_that_one_would_have_made() -> None:
    like = torch.empty(4, 2, 8, 8)
    whole = Draws.of(1, 7, 4)
    half = Draws.of(1, 7, 4, slice(2, 4))
    assert torch.equal(whole.sigmas()[2:], half.sigmas())
    assert torch.equal(whole.noise(like)[2:], half.noise(like[2:]))


def test_fine_tuning_the_decoder_leaves_the_encoder_as_it_was(tmp_path: Path) -> None:
    learner = network()
    freeze(learner, "decoder")
    before = {name: p.clone() for name, p in learner.named_parameters()}
    with closing(grey_noise()) as made:
        run(tmp_path, made, trained=learner)
    changed = {name for name, p in learner.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert changed <= {name for name in before if name.startswith(("down.1.", "up.", "grow.", "planes_out"))}
    assert "planes_out" in changed


class _NoNumbers:
    """Batches that hold NaN from a step on."""

    def __init__(self, made: Batches, step: int) -> None:
        self.made, self.step = made, step
        self.n_bytes, self.n_rejected = (1, 1), 0

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        batch = self.made.batch(step, share)
        return replace(batch, targets=batch.targets * float("nan")) if step >= self.step else batch

    def close(self) -> None:
        self.made.close()


def test_a_loss_that_is_no_number_ends_training_and_keeps_the_state_before(tmp_path: Path) -> None:
    with closing(_NoNumbers(grey_noise(), 5)) as made, pytest.raises(TrainingError, match="the loss is nan"):
        run(tmp_path, made)
    kept = weights(tmp_path)
    with closing(grey_noise()) as made:
        run(tmp_path / "good", made, table=TABLE.model_copy(update={"lr_decay": "none"}))
        assert run(tmp_path, made).step == 8
    assert b"nan" not in kept[:2000].lower()


def test_training_ends_when_validation_brings_nothing_better(tmp_path: Path) -> None:
    table = TABLE.model_copy(update={"steps": 40, "validate_every": 2, "patience": 2})
    watcher = Listening({2: 20.0, 4: 22.0, 6: 21.0, 8: 21.5, 10: 30.0})
    with closing(grey_noise()) as made:
        outcome = run(tmp_path, made, table=table, watcher=watcher)
        again = run(tmp_path, made, table=table, watcher=Listening({10: 30.0}))
    assert (outcome.stopped, outcome.step, outcome.best, outcome.best_step) == ("patience", 8, 22.0, 4)
    assert list(watcher.kept) == [2, 4]
    assert (again.stopped, again.step) == ("patience", 8)


def test_training_ends_when_its_time_is_up_also_over_several_calls(tmp_path: Path) -> None:
    seconds = iter(range(0, 10**6, 600))
    table = TABLE.model_copy(update={"steps": 1000, "hours": 2.0})
    with closing(grey_noise()) as made:
        outcome = run(tmp_path, made, table=table, clock=lambda: float(next(seconds)))
        assert outcome.stopped == "time"
        assert outcome.step < 20
        assert run(tmp_path, made, table=table, clock=lambda: float(next(seconds))).step == outcome.step


def test_without_validation_the_last_average_is_kept(tmp_path: Path) -> None:
    watcher = Listening()
    with closing(grey_noise()) as made:
        run(tmp_path, made, watcher=watcher)
    assert set(watcher.kept) == {8}


def test_a_state_that_is_damaged_or_of_another_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"\0" * 100)
    with closing(grey_noise()) as made, pytest.raises(ModelError, match="move it away"):
        run(tmp_path, made)


def test_the_learning_rate_warms_up_and_falls_to_zero_or_stays() -> None:
    table = TABLE.model_copy(update={"steps": 100, "warmup": 10})
    assert lr_at(table, 1.0, 0) == pytest.approx(0.1)
    assert lr_at(table, 1.0, 50) == pytest.approx(0.5)
    assert lr_at(table, 1.0, 100) == pytest.approx(0)
    assert lr_at(table.model_copy(update={"lr_decay": "none"}), 1.0, 99) == 1.0


def test_batches_are_made_ahead_in_order_and_an_error_is_raised_where_it_belongs() -> None:
    def make(n: int) -> int:
        if n == 5:
            raise ValueError("five")
        return n

    with Prefetched(make, range(9)) as made, pytest.raises(ValueError, match="five"):
        list(made)
    with Prefetched(make, range(5)) as made:
        assert list(made) == [0, 1, 2, 3, 4]


def test_a_journal_forgets_what_will_be_done_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (5, 10, 15):
        journal.add({"step": step, "loss": 1 / step})
    with journal.path.open("a") as file:
        file.write('{"step": 2')
    again = Journal(tmp_path, 10)
    assert [json.loads(line)["step"] for line in again.path.read_text().splitlines()] == [5, 10]
    again.draw()
    assert (tmp_path / "loss.png").stat().st_size > 500
    assert curve([]).size == curve([(1, 2.0), (2, 0.5)]).size
