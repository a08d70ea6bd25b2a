"""How the command line starts: what it imports, what it says of itself, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import click
import pytest
import tifffile
from small_volumes import VOXEL_SIZE, sections

from vemdiffuse_pipe.cli import entry
from vemdiffuse_pipe.errors import SourceError, StorageFullError

HEAVY = {
    "torch",
    "dask",
    "distributed",
    "scipy",
    "tensorstore",
    "zarr",
    "cloudvolume",
    "numpy",
    "pydantic",
    "rich",
}


def imported_by(*arguments: str | Path) -> set[str]:
    """Top-level modules in memory after a command line, in a fresh process."""
    program = (
        "import sys\n"
        "from vemdiffuse_pipe.cli.entry import run_command\n"
        f"code = run_command({[str(a) for a in arguments]})\n"
        "print('\\n'.join({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy() -> None:
    assert not imported_by("--help") & HEAVY


def test_plan_imports_neither_torch_nor_dask(stack: Path) -> None:
    source = '[source]\nurl = "stack.tif"\nvoxel_size_nm = [50, 10, 10]\n'
    (stack.parent / "run.toml").write_text(f'{source}[output]\nurl = "o.zarr"\n[model]\nname = "linear"\n')
    assert not imported_by("plan", "run.toml") & {"torch", "dask", "distributed"}
    assert not imported_by("run", "run.toml", "--dry-run") & {"torch", "dask", "distributed"}


@pytest.mark.parametrize("command", ["inspect", "init", "models", "evaluate", "train"])
def test_commands_that_render_nothing_import_neither_torch_nor_dask(command: str) -> None:
    assert not imported_by(command, "--help") & {"torch", "dask", "distributed"}


def test_each_command_says_what_the_list_says() -> None:
    for name, line in entry.COMMANDS.items():
        command: click.Command = import_module(f"vemdiffuse_pipe.cli.{name}").command
        assert command.name == name
        assert command.help is not None
        assert command.help.splitlines()[0] == line


def test_each_command_shows_examples(vemdiffuse) -> None:
    for name in entry.COMMANDS:
        ended = vemdiffuse(name, "--help")
        assert ended.code == 0
        assert f"\n    vemdiffuse {name}" in ended.stdout


def test_python_m_is_the_console_script() -> None:
    done = subprocess.run([sys.executable, "-m", "vemdiffuse_pipe", "models"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "linear" in done.stdout


def test_an_unknown_command_exits_2(vemdiffuse) -> None:
    ended = vemdiffuse("reconstrct")
    assert ended.code == 2
    assert "reconstrct" in ended.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SourceError("no volume at \x1b[31mplace\nhere"), 2, "vemdiffuse: no volume at [31mplace here\n"),
        (StorageFullError("the disk is full"), 1, "vemdiffuse: the disk is full\n"),
        (KeyboardInterrupt(), 130, "rerun to resume"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "this is a bug: ZeroDivisionError: division by zero; please report",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_one_sentence_and_an_exit_code(vemdiffuse, monkeypatch, error, code, said) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("vemdiffuse_pipe.cli.models.shipped_models", fail)
    ended = vemdiffuse("models")
    assert ended.code == code
    assert said in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not ended.stdout


def test_an_interrupt_stays_one_when_a_library_raises_over_it(vemdiffuse, monkeypatch) -> None:
    def fail() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise ImportError("initialization failed") from interrupt

    monkeypatch.setattr("vemdiffuse_pipe.cli.models.shipped_models", fail)
    assert vemdiffuse("models").code == 130


def test_a_traceback_is_shown_when_asked_for(vemdiffuse, monkeypatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("vemdiffuse_pipe.cli.models.shipped_models", fail)
    monkeypatch.setenv("VEMDIFFUSE_TRACEBACK", "1")
    assert "Traceback" in vemdiffuse("models").stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m vemdiffuse_pipe models --json | true",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


def test_an_interrupted_run_says_how_to_go_on(here: Path) -> None:
    tifffile.imwrite("big.tif", sections((20, 1200, 1200)), photometric="minisblack")
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vemdiffuse_pipe",
            "reconstruct",
            "big.tif",
            "big.zarr",
            *VOXEL_SIZE,
            "--model",
            "cubic",
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not Path("big.zarr/zarr.json").exists():
        assert run.poll() is None
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "rerun" in stdout + stderr
    assert "Traceback" not in stderr
