"""Every documented command runs: README, workflows/ and help, in the order in which they stand.

The documents are followed in a folder that holds small volumes under the names that they use.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import cleandoc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemdiffuse_pipe.cli.entry import COMMANDS, run_command
from vemdiffuse_pipe.phantom import phantom

ROOT = Path(__file__).parents[1]
GUIDES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "workflows").glob("*.md"))
DOCUMENTS = ("README.md", *GUIDES)

VOLUMES = {
    "stack.tif": (3, 48, 40),
    "stack_to_train_on.tif": (10, 48, 40),
    "sections.tif": (9, 72, 104),
    "truth.tif": (23, 48, 40),
    "drosophila_vnc/stack1_raw.tif": (2, 40, 40),
    "isbi2012/train_raw.tif": (2, 40, 40),
    "fib25/volume_a_raw.tif": (320, 40, 40),
    "fib25/volume_b_raw.tif": (32, 40, 40),
    "fib25/volume_c_raw.tif": (32, 40, 40),
}
# Training files are followed for a few steps, on small crops of small volumes.
SMALLER = {
    '"stack.tif"': '"stack_to_train_on.tif"',
    "batch_size = 16": "batch_size = 2",
    "gaps = 8": "gaps = 1",
    "gaps = 4": "gaps = 1",
    "share = 0.2": "share = 0.4",
    "crop_px = [16, 64]": "crop_px = [8, 16]",
    "crop_px = [32, 64]": "crop_px = [8, 16]",
    "crop_px = 64": "crop_px = 16",
    "520, 520": "40, 40",
}


def blocks(document: str, language: str) -> Iterator[str]:
    """The text of each fenced block of a language."""
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    yield from (text for found, text in fences if found == language)


def runnable_blocks(document: str) -> list[tuple[str, str]]:
    """(language, text) of the blocks that a reader runs, in order."""
    return re.findall(
        r"^```(console|python)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL
    )


def command_lines(text: str) -> list[str]:
    """The lines of a console block, without their prompt."""
    return [line.removeprefix("$ ") for line in text.splitlines()]


BLOCKS = [
    pytest.param(language, text, index == 0, id=f"{document}-{index + 1}")
    for document in DOCUMENTS
    for index, (language, text) in enumerate(runnable_blocks(document))
]


# Examples that serve until they are interrupted (see tests/handoff/test_view.py), or need a public store.
UNATTENDED = ("vemdiffuse view isotropic.zarr", "vemdiffuse view s3://bucket/isotropic.zarr --url")


def examples() -> list[str]:
    """The command lines in the help of every command, in order, but for those that are UNATTENDED."""
    helps = (cleandoc(import_module(f"vemdiffuse_pipe.cli.{name}").command.help) for name in COMMANDS)
    lines = [line.strip() for text in helps for line in text.splitlines() if line.startswith("  vemdiffuse ")]
    return [line for line in lines if line not in UNATTENDED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documents are followed: small volumes, the run files, and `vemdiffuse` on the path."""
    place = tmp_path_factory.mktemp("documents")
    texture = phantom((64, 48, 48), 1)
    for name in ("raw.tif", "clean.tif"):
        tifffile.imwrite(place / name, phantom((1, 160, 160), 2)[0], photometric="minisblack")
    for name, (z, y, x) in VOLUMES.items():
        path = place / name
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, np.resize(texture[:, :y, :x], (z, y, x)), photometric="minisblack")
    for run_file in (ROOT / "workflows").glob("*.toml"):
        text = run_file.read_text().replace('device = "cuda"', 'device = "cpu"')
        if run_file.stem.startswith("compare_"):
            text = text.replace("[1, 2, 4, 8]", "[1, 2]").replace("steps = 8", "steps = 2")
            text = text.replace("middle_px = 192", "middle_px = 32").replace("[220, 281]", "[220, 241]")
        if run_file.stem.startswith("train_"):
            for large, small in SMALLER.items():
                text = text.replace(large, small)
            text = re.sub(r"steps = \d{4,}", "steps = 2", text)
        (place / run_file.name).write_text(text)
        (place / "workflows").mkdir(exist_ok=True)
        (place / "workflows" / run_file.name).write_text(text)
    (place / "bin").mkdir()
    script = place / "bin" / "vemdiffuse"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vemdiffuse_pipe "$@"\n')
    script.chmod(0o755)
    write_sbatch(place / "bin" / "sbatch")
    return place


def write_sbatch(path: Path) -> None:
    """A Slurm of one slot, in which only two jobs of an array ever start: they do the rest as well."""
    path.write_text(
        """#!/bin/bash
export SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=$(sed -n 's/#SBATCH --array=1-//p' "$1")
for SLURM_ARRAY_TASK_ID in 1 2; do
  export SLURM_ARRAY_TASK_ID
  bash "$1" > "${1%.slurm.sh}.logs/$SLURM_ARRAY_TASK_ID.log" 2>&1
done
echo Submitted batch job 1
"""
    )
    path.chmod(0o755)


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the documents, as the current one."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=os.pathsep)
    return folder


def follow_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command line in this process, which saves a start of torch; in a shell where it needs one.

    Asserts that it succeeds, and that it prints something or writes it to a file.
    """
    line = line.replace("--minutes 20", "--minutes 0.01")
    if ">" in line:
        follow_process(["bash", "-c", line])
        if line.endswith("> run.toml"):  # the reader takes the comment marks of [cluster] away
            with Path("run.toml").open("a") as file:
                file.write("\n[cluster]\nmemory_gb = 8.0\n")
        return
    program, *arguments = shlex.split(line)
    assert program == "vemdiffuse"
    capsys.readouterr()
    code = run_command(arguments)
    out, err = capsys.readouterr()
    assert code == 0, f"{line}\n{out}\n{err}"
    assert out, f"{line} printed nothing"


def follow_process(command: list[str]) -> None:
    """Run a command in the current folder. Asserts that it succeeds."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(("language", "text", "is_first"), BLOCKS)
def test_the_blocks_of_a_document_run_in_order(
    reader: Path, capsys: pytest.CaptureFixture[str], language: str, text: str, is_first: bool
) -> None:
    """A block may need what the blocks before it in its document made."""
    if is_first:
        for output in reader.glob("isotropic.zarr*"):
            shutil.rmtree(output) if output.is_dir() else output.unlink()
    if language == "python":
        follow_process([sys.executable, "-c", text])
        return
    for line in command_lines(text):
        follow_command(line, capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("reader")
def test_the_examples_of_the_help_run(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("vemdiffuse reconstruct stack.tif isotropic.zarr --voxel-size 50 4.6 4.6", *examples()):
        follow_command(line, capsys)


def test_console_blocks_hold_command_lines_only() -> None:
    for document in DOCUMENTS:
        for text in blocks(document, "console"):
            assert all(line.startswith("$ vemdiffuse ") for line in text.splitlines()), text


def test_the_readme_lists_the_commands_that_there_are() -> None:
    rows = re.findall(
        r"^\| `vemdiffuse (\w+)[^`]*` \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == COMMANDS
    assert [name for name, _ in rows] == list(COMMANDS)


def test_every_command_is_run_by_a_document() -> None:
    shown = " ".join(text for document in DOCUMENTS for _, text in runnable_blocks(document))
    shown += " ".join(blocks("README.md", "bash"))
    assert not [name for name in COMMANDS if f"vemdiffuse {name}" not in shown]


def test_every_command_shows_examples() -> None:
    assert {line.split()[1] for line in examples()} == set(COMMANDS)


def test_the_readme_is_short_and_leads_to_every_guide() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert not [guide for guide in GUIDES if f"]({guide})" not in text]


def test_there_are_two_commands_to_begin_with_and_ci_runs_the_second() -> None:
    first, second = (text.strip() for text in blocks("README.md", "bash"))
    assert first.endswith("vemdiffuse demo")
    wanted = re.search(r"--fixed-strings \"(.*?)\" README.md", (ROOT / ".ci/run").read_text())
    assert wanted is not None
    assert [line for line in (ROOT / "README.md").read_text().splitlines() if wanted[1] in line] == [second]


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        here = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (here / target).exists(), f"{document}: {target}"
