"""The small parts of a run: retry_policy, contrast, identity, marks."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from vemdiffuse_pipe.errors import (
    CorruptDataError,
    DataError,
    MissingDataError,
    OutputError,
    SourceError,
    TransientError,
)
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.output.identity import check_identity
from vemdiffuse_pipe.records import failures
from vemdiffuse_pipe.records.events import FailedBlock
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.storage import parse_address
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.retry import RetriesExhaustedError, RetryPolicy, reason_of, with_retries
from vemdiffuse_pipe.survey.contrast import measure_contrast
from vemdiffuse_pipe.testing import ArraySource, Failure, FlakySource


class Attempts:
    """Fails `n_failures` times, then succeeds."""

    def __init__(self, n_failures: int, error: Exception) -> None:
        self.left, self.error, self.n = n_failures, error, 0

    def __call__(self) -> str:
        self.n += 1
        if self.n <= self.left:
            raise self.error
        return "done"


def test_what_is_transient_is_tried_again_after_growing_waits() -> None:
    waits: list[float] = []
    reasons: list[str] = []
    attempts = Attempts(3, TransientError("the network is down"))
    assert with_retries(attempts, RetryPolicy(base_s=1.0), reasons.append, waits.append) == "done"
    assert reasons == ["TransientError: the network is down"] * 3
    assert [base / 2 <= wait <= base for wait, base in zip(waits, (2, 4, 8), strict=True)] == [True] * 3


def test_what_stays_transient_is_given_up_with_its_reason_and_attempts() -> None:
    with pytest.raises(RetriesExhaustedError, match="network") as caught:
        with_retries(
            Attempts(9, TransientError("the network is down")), RetryPolicy(), lambda _: None, lambda _: None
        )
    assert caught.value.n_attempts == 4


def test_what_is_not_transient_is_not_tried_again() -> None:
    attempts = Attempts(9, MissingDataError("chunk 3"))
    with pytest.raises(MissingDataError):
        with_retries(attempts, RetryPolicy(), lambda _: None, lambda _: None)
    assert attempts.n == 1


def test_waits_never_exceed_the_longest() -> None:
    assert RetryPolicy(base_s=1, most_s=30).wait_s(40) <= 30


def test_having_given_up_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(RetriesExhaustedError("TransientError: no", 4)))
    assert (reason_of(error), error.n_attempts) == ("TransientError: no", 4)


def test_a_reason_is_one_line_and_has_an_end() -> None:
    assert reason_of(ValueError("a\nb " + "c" * 9000)).startswith("ValueError: a b ccc")
    assert len(reason_of(ValueError("c" * 9000))) < 600


def test_contrast_is_that_of_the_three_central_windows() -> None:
    rng = np.random.default_rng(3)
    volume = rng.integers(1, 255, (13, 600, 700)).astype(np.uint8)
    window = volume[[2, 6, 10], 44:556, 94:606].astype(np.float64)
    expected = (round(window.mean(), 3), round(window.std(), 3))
    assert measure_contrast(ArraySource(volume)) == expected


def test_contrast_leaves_out_padding() -> None:
    volume = np.zeros((3, 20, 20), np.uint8)
    volume[:, :10, :10] = np.tile(np.uint8([100, 140]), 50).reshape(10, 10)
    volume[:, 10:, 10:] = 255
    assert measure_contrast(ArraySource(volume)) == (120.0, 20.0)


def test_a_volume_that_is_black_in_the_middle_is_measured_around_it() -> None:
    volume = np.zeros((3, 1600, 1600), np.uint8)
    volume[:, :500, :500] = np.tile(np.uint8([100, 140]), 125_000).reshape(500, 500)
    assert measure_contrast(ArraySource(volume)) == pytest.approx((120, 20), abs=0.1)


def test_a_volume_without_tissue_asks_for_its_contrast() -> None:
    volume = np.zeros((3, 20, 20), np.uint8)
    volume[:, 0, 0] = 100
    with pytest.raises(SourceError, match=r"contrast = \[128.0, 30.0\]"):
        measure_contrast(ArraySource(volume))


@pytest.mark.parametrize("error", [MissingDataError, CorruptDataError])
def test_a_section_that_cannot_be_read_is_passed_over(error: type[DataError]) -> None:
    volume = np.full((7, 20, 20), 50, np.uint8)
    volume[4] = 90
    unreadable = FlakySource(ArraySource(volume), [Failure(Box((3, 0, 0), (4, 20, 20)), 99, error)])
    assert measure_contrast(unreadable)[0] == pytest.approx((50 + 90 + 50) / 3, abs=1e-3)


def test_a_constant_volume_has_deviation_one() -> None:
    assert measure_contrast(ArraySource(np.full((3, 20, 20), 77, np.uint8))) == (77.0, 1.0)


def test_contrast_never_asks_for_a_rejected_section() -> None:
    volume = np.full((7, 20, 20), 50, np.uint8)
    volume[4] = 90
    unreadable = FlakySource(ArraySource(volume), [Failure(Box((3, 0, 0), (4, 20, 20)), 9, MissingDataError)])
    assert measure_contrast(unreadable, rejected=[3])[0] == pytest.approx((50 + 90 + 50) / 3, abs=1e-3)


def test_another_run_is_refused_by_every_name_that_differs() -> None:
    stored = {"seed": 1, "model": "default", "overlap_px": [32, 32], "steps": 10}
    wanted = {"seed": 2, "model": "default", "overlap_px": [16, 32], "steps": 10, "window": [0.0, 9.0]}
    with pytest.raises(OutputError) as caught:
        check_identity("out.zarr", stored, wanted)
    sentence = str(caught.value)
    assert (
        "out.zarr belongs to another run: seed 1 -> 2; overlap_px [32, 32] -> [16, 32]; window none"
        in sentence
    )
    assert "model" not in sentence


def test_the_same_run_is_not_refused() -> None:
    check_identity("out.zarr", {"seed": 1, "window": None}, {"window": None, "seed": 1})


@pytest.fixture
def output(tmp_path: Path) -> Address:
    return parse_address(tmp_path)


BLOCKS = BlockGrid((8, 8, 8), (8, 8, 4))
SHARDS = BlockGrid((8, 8, 8), (8, 4, 4))


def give_up(output: Address, block_index: int) -> None:
    writer = SegmentWriter(output / failures.FOLDER)
    block = FailedBlock(block_index, BLOCKS.box(block_index), "MissingDataError: gone", 1)
    failures.write_mark(writer, failures.new_mark(block, SHARDS))
    writer.close()


def marked(output: Address, done: ShardSet | None = None) -> list[FailedBlock]:
    return [m.block for m in failures.read_marks(output, BLOCKS, done or ShardSet(SHARDS))]


def test_a_mark_comes_back_as_it_was_written(output: Address) -> None:
    give_up(output, 1)
    assert marked(output) == [FailedBlock(1, BLOCKS.box(1), "MissingDataError: gone", 1)]


def test_a_released_mark_does_not_hold_and_a_new_one_does(output: Address) -> None:
    give_up(output, 0)
    give_up(output, 1)
    failures.release(output, failures.read_marks(output, BLOCKS, ShardSet(SHARDS)))
    assert marked(output) == []
    give_up(output, 1)
    assert [m.block_index for m in marked(output)] == [1]


def test_a_mark_of_a_block_that_was_done_after_all_does_not_hold(output: Address) -> None:
    give_up(output, 0)
    done = ShardSet(SHARDS)
    for shard in SHARDS.touching(BLOCKS.box(0)):
        assert len(marked(output, done)) == 1
        done.add(shard)
    assert marked(output, done) == []
