"""A part of a run in this process: what it does of the work, what it costs, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import SHAPE, interpolated, small_run, stored

from vemdiffuse_pipe.cluster.walltime import Deadline
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import CorruptDataError, OutputError, TransientError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.output.run_output import create_run_output
from vemdiffuse_pipe.plan.estimate import BLOCKS_IN_FLIGHT
from vemdiffuse_pipe.records.events import (
    BlockDone,
    Event,
    FailedBlock,
    Outcome,
    PlanesDone,
    RunEnded,
    RunStarted,
)
from vemdiffuse_pipe.records.parts import Part
from vemdiffuse_pipe.running.execution import run_plan
from vemdiffuse_pipe.running.reconstruct import prepare, run
from vemdiffuse_pipe.running.rules import MAX_EXHAUSTED_IN_A_ROW
from vemdiffuse_pipe.storage.retry import RetryPolicy
from vemdiffuse_pipe.testing import Failure, FlakySource, position_coded
from vemdiffuse_pipe.volume import OnHole, Source, VolumeSpec, Voxels, ignore_hole

TRUTH = interpolated(position_coded(SHAPE), 5)
HASTY = RetryPolicy(n_attempts=2, base_s=0.001)
WHOLE = Box.of_shape(SHAPE)


def done_by(run_file: RunFile, part: Part, max_blocks: int | None = None) -> list[int]:
    """The blocks that a part does, in their order."""
    heard: list[Event] = []
    run(run_file, part=part, max_blocks=max_blocks, listener=heard.append)
    return [event.block_index for event in heard if isinstance(event, BlockDone)]


def failing(run_file: RunFile, *failures: Failure) -> Outcome:
    source, plan = prepare(run_file)
    return run_plan(plan, FlakySource(source, failures), part=Part(1, 1), retry_policy=HASTY)


def test_a_part_is_done_first_and_then_the_rest(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    done = done_by(run_file, Part(2, 3))
    assert sorted(done[:8]) == list(range(1, 24, 3))
    assert sorted(done) == list(range(24))
    np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_a_part_can_be_divided_again_at_any_time(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    done = [done_by(run_file, Part(i, 8), max_blocks=1) for i in range(1, 9)]
    done += [done_by(run_file, Part(i, 3), max_blocks=4) for i in range(1, 4)]
    assert [len(blocks) for blocks in done] == [1] * 8 + [4] * 3
    assert len({index for blocks in done for index in blocks}) == 20
    assert len(done_by(small_run(tmp_path, run={"block_shape": (16, 16, 16)}), Part(1, 2))) >= 4
    np.testing.assert_array_equal(stored(run_file), TRUTH)


def test_more_parts_than_blocks_do_all_of_them(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    assert sorted(done_by(run_file, Part(99, 100))) == list(range(24))


def test_the_start_speaks_of_the_part_alone(tmp_path: Path) -> None:
    heard: list[Event] = []
    outcome = run(small_run(tmp_path), part=Part(2, 3), max_blocks=0, listener=heard.append)
    started, ended = heard
    assert isinstance(started, RunStarted)
    assert (started.n_missing, started.n_voxels) == (8, round(31 * 37 * 53 / 3))
    assert ended == RunEnded(outcome)
    assert (outcome.n_done, outcome.exit_code) == (0, 1)


def test_what_keeps_failing_is_marked_failed_and_the_rest_done(tmp_path: Path) -> None:
    bad = Failure(Box((6, 0, 0), (7, 1, 1)), 99, CorruptDataError)
    outcome = failing(small_run(tmp_path), bad)
    assert [block.block_index for block in outcome.failed_blocks] == [18]
    assert (outcome.n_done, outcome.exit_code) == (23, 1)


def test_a_faulty_host_marks_no_block_failed_and_leaves_them_to_others(tmp_path: Path) -> None:
    outcome = failing(small_run(tmp_path), Failure(WHOLE, 999, VemdiffuseError))
    assert "blocks in a row failed here: assuming a faulty host" in outcome.stopped
    assert (outcome.failed_blocks, outcome.n_done) == ((), 0)
    assert sorted(done_by(small_run(tmp_path), Part(1, 1))) == list(range(24))


def test_what_fails_on_a_machine_that_works_is_marked_failed_in_the_end(tmp_path: Path) -> None:
    outcome = failing(small_run(tmp_path), Failure(Box((6, 0, 0), (7, 1, 1)), 99, VemdiffuseError))
    assert [block.block_index for block in outcome.failed_blocks] == [18]
    assert outcome.n_done == 23


def test_what_another_part_has_marked_failed_is_not_tried_again(tmp_path: Path) -> None:
    failing(small_run(tmp_path), Failure(Box((6, 0, 0), (7, 1, 1)), 99, CorruptDataError))
    assert done_by(small_run(tmp_path), Part(1, 1)) == []


def test_what_passes_is_tried_again(tmp_path: Path) -> None:
    assert failing(small_run(tmp_path), Failure(WHOLE, 1, TransientError)).exit_code == 0


def test_a_store_that_answers_nobody_ends_the_part(tmp_path: Path) -> None:
    outcome = failing(small_run(tmp_path), Failure(WHOLE, 999, TransientError))
    assert outcome.stopped.startswith(f"{MAX_EXHAUSTED_IN_A_ROW} blocks in a row failed after all retries")
    assert len(outcome.failed_blocks) <= MAX_EXHAUSTED_IN_A_ROW + 3
    assert not outcome.drained


def test_what_no_block_survives_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        failing(small_run(tmp_path), Failure(WHOLE, 1, OutputError))


class Watched:
    """A source that counts its reads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.n_reads = 0

    @property
    def spec(self) -> VolumeSpec:
        return self._source.spec

    def read(self, box: Box, on_hole: OnHole = ignore_hole) -> Voxels:
        self.n_reads += 1  # by one thread
        return self._source.read(box, on_hole)


def test_while_one_block_is_rendered_others_are_read_as_many_as_the_estimate_counts(tmp_path: Path) -> None:
    source, plan = prepare(small_run(tmp_path))
    watched, seen = Watched(source), []

    def hear(event: Event) -> None:
        if isinstance(event, PlanesDone) and not seen:  # in the thread that renders
            time.sleep(0.5)
            seen.append(watched.n_reads)

    assert run_plan(plan, watched, part=Part(1, 1), listener=hear).exit_code == 0
    assert seen == [BLOCKS_IN_FLIGHT]


def test_a_part_out_of_time_shuts_down_with_what_it_has(tmp_path: Path) -> None:
    run_file = small_run(tmp_path)
    now = [0.0]

    def hear(event: Event) -> None:
        now[0] += isinstance(event, BlockDone)

    source, plan = prepare(run_file)
    outcome = run_plan(plan, source, part=Part(1, 1), listener=hear, deadline=Deadline(5.0, lambda: now[0]))
    assert 5 <= outcome.n_done < 24
    assert (outcome.drained, outcome.exit_code) == (True, 0)
    assert outcome.stopped == "the time of this job is nearly over; rerun to resume"
    assert run(run_file).n_rendered == 24 - outcome.n_done


def test_a_graceful_shutdown_does_not_hide_failed_blocks() -> None:
    outcome = Outcome(24, 3, 3, (), "SIGTERM was received", drained=True)
    assert outcome.exit_code == 0
    assert replace(outcome, failed_blocks=(FailedBlock(1, WHOLE, "CorruptDataError: no", 1),)).exit_code == 1
    assert replace(outcome, drained=False).exit_code == 1


def test_a_part_never_imports_dask(tmp_path: Path) -> None:
    program = (
        "import sys, tempfile\nfrom pathlib import Path\nfrom small_runs import small_run\n"
        "from vemdiffuse_pipe.records.parts import Part\n"
        "from vemdiffuse_pipe.running.reconstruct import run\n"
        "assert run(small_run(Path(sys.argv[1])), part=Part(1, 2)).exit_code == 0\n"
        "print([name for name in ('dask', 'distributed') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_an_output_that_another_begins_meanwhile_is_taken_over_or_refused_by_name(tmp_path: Path) -> None:
    _, plan = prepare(small_run(tmp_path))
    _, other = prepare(small_run(tmp_path, model={"ratio": 3}))
    create_run_output(plan)
    (Path(plan.run_file.output.url) / ".vemdiffuse").mkdir()
    assert create_run_output(plan).sink.attributes == create_run_output(plan).sink.attributes
    with pytest.raises(OutputError, match="ratio 5 -> 3"):
        create_run_output(other)
