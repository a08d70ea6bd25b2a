"""The command line while a run works and after: status, its pictures and its lines, and events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_volumes import Ended

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.events import format_text
from vemdiffuse_pipe.monitor.event_log import LoggedEvent
from vemdiffuse_pipe.records.folder import records_of
from vemdiffuse_pipe.records.journal import EVENTS, Journal
from vemdiffuse_pipe.records.segments import SegmentWriter
from vemdiffuse_pipe.running.reconstruct import run
from vemdiffuse_pipe.storage import open_sink, parse_address

Vemdiffuse = Callable[..., Ended]

STATUS = {
    "output": str,
    "identity": dict,
    "digest": str,
    "n_shards": int,
    "n_shards_done": int,
    "n_blocks": int,
    "n_blocks_done": int,
    "n_blocks_skipped": int,
    "n_shards_skipped": int,
    "running": list,
    "failed_blocks": list,
    "reasons": list,
    "voxels_done": int,
    "voxels_total": int,
    "seconds": dict,
    "n_attempts_failed": int,
    "n_requests_failed": int,
    "bytes_read": int,
    "bytes_fetched": int,
    "n_voxels_filled": int,
    "peak_bytes": int,
    "peak_gpu_bytes": int,
    "voxels_per_s": float,
    "voxels_per_s_now": float,
    "seconds_left": float,
    "last_receipt": float,
    "processes": list,
    "hosts": list,
    "slowest": list,
}
HOST = {"host", "devices", "n_processes", "n_blocks_done", "voxels_done", "voxels_per_s_now"}
EVENT = {"time", "host", "pid", "job", "what", "block", "reason", "facts"}


def run_command_line(*arguments: str) -> subprocess.Popen[str]:
    """`vemdiffuse` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(config.__file__).parents[1])}
    command = [sys.executable, "-m", "vemdiffuse_pipe", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def begun(stack: Path, vemdiffuse: Vemdiffuse) -> str:
    """The output of a run of which nothing is done yet."""
    text = vemdiffuse("init", stack.name, "begun.zarr", "--voxel-size", "50", "10", "10").stdout
    Path("run.toml").write_text(text.replace('name = "default"', 'name = "linear"'))
    run_file = config.load(Path("run.toml"))
    run(run_file.model_copy(update={"model": config.ModelTable(name="linear")}), max_blocks=0)
    return "begun.zarr"


def test_status_for_machines_has_these_fields_of_these_types(output: str, vemdiffuse: Vemdiffuse) -> None:
    facts = json.loads(vemdiffuse("status", output, "--json").stdout)
    assert {name: type(value) for name, value in facts.items()} == STATUS
    assert set(facts["hosts"][0]) == HOST
    assert set(facts["slowest"][0]) == {"block_index", "seconds", "host"}


def test_status_names_the_run(output: str, vemdiffuse: Vemdiffuse) -> None:
    shown = vemdiffuse("status", output).stdout
    for named in ("stack.tif", "model linear", "seed 0", "steps 1", "ratio 5"):
        assert named in shown


def test_status_says_who_is_at_work_where_blocks_end_before_they_are_named(
    output: str, vemdiffuse: Vemdiffuse
) -> None:
    shape = open_sink(output).spec.shard_shape
    with Journal(records_of(parse_address(output)), shape) as journal:
        journal.start(0)  # which is done
        journal.beat()
        assert "1 process running, on blocks too short to be listed" in vemdiffuse("status", output).stdout
    assert "0 running" in vemdiffuse("status", output).stdout


def test_watching_what_is_complete_ends_at_once_with_one_line(output: str, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("status", output, "--watch")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.startswith("1 of 1 blocks done, 0 running, 0 failed, ")
    assert ended.stdout.endswith(" voxels/s, complete\n")
    facts = vemdiffuse("status", output, "--watch", "--json").stdout
    assert json.loads(facts)["n_blocks_done"] == 1
    assert facts.count("\n") == 1


@pytest.mark.parametrize("watching", [("status", "--watch"), ("events", "--follow")])
def test_an_interrupt_ends_watching_quietly(begun: str, watching: tuple[str, str]) -> None:
    command, option = watching
    append(begun, time=1.0, what="set aside")
    process = run_command_line(command, begun, option)
    assert process.stdout is not None
    assert process.stdout.readline()
    time.sleep(0.3)  # now it waits
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_map_is_a_picture_of_the_blocks(output: str, vemdiffuse: Vemdiffuse) -> None:
    assert vemdiffuse("status", output, "--map", "blocks.png").code == 0
    with Image.open("blocks.png") as image:
        assert (0, 158, 115) in {tuple(pixel) for pixel in np.asarray(image.convert("RGB")).reshape(-1, 3)}


def test_a_map_that_cannot_be_written_is_refused_in_a_sentence(output: str, vemdiffuse: Vemdiffuse) -> None:
    ended = vemdiffuse("status", output, "--map", "nowhere/blocks.png")
    assert ended.code == 2
    assert "cannot be written to nowhere/blocks.png (No such file or directory)" in ended.stderr


def append(output: str, **record: object) -> None:
    writer = SegmentWriter(records_of(parse_address(output)) / EVENTS)
    writer.append({"host": "node1", "pid": 42, **record})  # type: ignore[dict-item]
    writer.close()


def test_events_are_one_line_each(output: str, vemdiffuse: Vemdiffuse) -> None:
    started, ended = vemdiffuse("events", output).stdout.splitlines()
    assert " run started (" in started
    assert ended.endswith(" run ended")
    told = [json.loads(line) for line in vemdiffuse("events", output, "--json").stdout.splitlines()]
    assert [event["what"] for event in told] == ["run started", "run ended"]
    assert all(set(event) == EVENT for event in told)


def test_an_event_in_words_says_all_of_it() -> None:
    told = LoggedEvent(
        1.8e9, "node1", 42, "4711_3", "set aside", 7, "MissingDataError: gone", {"attempts": 4}
    )
    assert format_text(told) == (
        "2027-01-15 08:00:00 node1:42 job 4711_3 set aside: block 7: MissingDataError: gone (attempts 4)"
    )


def test_what_a_terminal_would_obey_is_not_printed(output: str, vemdiffuse: Vemdiffuse) -> None:
    append(output, time=1e300, what="\x1b[2J", reason="\r\x07")
    shown = vemdiffuse("events", output).stdout
    assert len(shown.splitlines()) == 3
    assert all(c.isprintable() or c == "\n" for c in shown)


@pytest.mark.skipif(find_spec("bokeh") is not None, reason="bokeh is installed")
def test_a_dashboard_without_bokeh_is_refused_before_anything_is_written(
    stack: Path, vemdiffuse: Vemdiffuse
) -> None:
    text = vemdiffuse("init", stack.name, "out.zarr", "--voxel-size", "50", "10", "10").stdout
    Path("run.toml").write_text(text)
    ended = vemdiffuse("run", "run.toml", "--dashboard", "--engine", "local")
    assert ended.code == 2
    assert "drawn by bokeh, which is not installed" in ended.stderr
    assert not Path("out.zarr").exists()
