"""Every precondition of a run: all four doors refuse a run whose precondition does not hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_runs import small_run

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.config import dump
from vemdiffuse_pipe.errors import InputError, PlanError
from vemdiffuse_pipe.output.preparation import prepare
from vemdiffuse_pipe.running.preconditions import (
    PRECONDITIONS,
    Where,
    check_gpu_memory,
    check_run,
    is_on_this_machine,
)

Tables = dict[str, dict[str, object]]

CLUSTER: dict[str, object] = {"memory_gb": 4, "cores": 2}
COSTLY: Tables = {
    "model": {"name": "default"},
    "price": {"max_gpu_hours": 1e-9, "tflops": 1},
    "run": {"device": "cuda"},
}

# name of the precondition: what breaks it, and the doors that refuse it for want of it
DOORS = ("run", "part", "dry-run", "submit")
CASES: dict[str, tuple[Tables, str, tuple[str, ...]]] = {
    "cluster": ({"run": {"engine": "slurm"}, "cluster": {}}, r"needs a \[cluster\] table", DOORS),
    "dashboard": ({"run": {"dashboard": True}}, "dashboard shows worker", DOORS),
    "engine": ({"run": {"engine": "lsf"}}, "bsub is not on the PATH", ("run", "dry-run")),
    "memory limit": ({"run": {"max_memory_gb": 0.01}}, "may need .* GB of memory", DOORS),
    "memory": ({"run": {"workers": 4000}, "cluster": {"memory_gb": 0.1}}, "may need .* GB", DOORS),
    "device": ({"run": {"device": "cuda:77"}}, "cuda:77' cannot be used here", ("run", "part", "dry-run")),
    "price limit": (COSTLY, "max_gpu_hours", DOORS),
    "mask": ({"mask": {"url": "nowhere.zarr"}}, "nowhere.zarr", DOORS),
    "output": ({"model": {"ratio": 3}}, "ratio 5 -> 3", DOORS),
}


def broken(folder: Path, tables: Tables) -> Path:
    """A run file in which one precondition does not hold."""
    given: Tables = {"cluster": CLUSTER, **tables}
    if given["cluster"] == {}:
        del given["cluster"]
    file = folder / "run.toml"
    file.write_text(dump(small_run(folder, **given)))
    return file


def test_every_precondition_has_a_case_here() -> None:
    assert {precondition.name for precondition in PRECONDITIONS} == {*CASES, "GPU memory"}


@pytest.mark.parametrize("name", CASES)
def test_all_doors_refuse_a_run_whose_precondition_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tables, message, doors = CASES[name]
    monkeypatch.setenv("PATH", "")
    if name == "output":
        assert run_command(["run", str(broken(tmp_path, {}))]) == 0
    file = str(broken(tmp_path, tables))
    commands = {
        "run": ["run", file],
        "part": ["run", file, "--part", "1/2"],
        "dry-run": ["run", file, "--dry-run"],
        "submit": ["submit", file, "--scheduler", "slurm", "--dry-run"],
    }
    if name == "memory":  # of one process there is enough, of a job there is not
        doors = ("run", "dry-run", "submit")
    for door in doors:
        capsys.readouterr()
        assert run_command(commands[door]) == 2, door
        error = capsys.readouterr().err
        assert re.search(message, error), (door, error)
    if name != "output":
        assert not (tmp_path / "out.zarr").exists()


def test_a_place_where_no_output_can_be_is_refused_before_a_run_or_a_job_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = str(broken(tmp_path, {})), tmp_path / "out.zarr"
    commands = (["run", file, "--dry-run"], ["submit", file, "--scheduler", "slurm", "--dry-run"])
    out.write_text("a file")
    for command in commands:
        assert run_command(command) == 2
        assert "is a file" in capsys.readouterr().err
    out.unlink()
    (out / "em").mkdir(parents=True)
    (out / "em" / "zarr.json").write_text("{}")  # as an interrupted creation leaves it
    for command in commands:
        assert run_command(command) == 0
    (out / "thesis.txt").write_text("of somebody")
    for command in commands:
        assert run_command(command) == 2
        assert "holds thesis.txt" in capsys.readouterr().err


def test_jobs_and_parts_are_told_only_to_leave_the_dashboard_out(tmp_path: Path) -> None:
    _, plan = prepare(small_run(tmp_path, run={"dashboard": True}, cluster=CLUSTER))
    for where in (Where.JOBS, Where.THIS_PROCESS):
        with pytest.raises(InputError, match="starts none: leave dashboard out"):
            check_run(plan, where)


def test_a_batch_that_no_gpu_holds_is_refused(tmp_path: Path) -> None:
    _, plan = prepare(small_run(tmp_path, model={"name": "default"}, run={"device": "cuda"}))
    check_gpu_memory(plan, None)
    check_gpu_memory(plan, 10**12)
    with pytest.raises(PlanError, match=r"may need .* GB of GPU memory; cuda has 0\.00 GB"):
        check_gpu_memory(plan, 10**6)


def test_the_first_precondition_that_does_not_hold_is_the_one_that_is_named(tmp_path: Path) -> None:
    _, plan = prepare(small_run(tmp_path, run={"engine": "slurm", "max_memory_gb": 0.01}))
    with pytest.raises(InputError, match="needs a"):
        check_run(plan, Where.ENGINE)


def test_devices_and_gpu_memory_are_those_of_the_machine_that_does_the_work(tmp_path: Path) -> None:
    _, here = prepare(small_run(tmp_path))
    _, slurm = prepare(small_run(tmp_path, run={"engine": "slurm"}))
    assert is_on_this_machine(here, Where.ENGINE)
    assert is_on_this_machine(slurm, Where.THIS_PROCESS)
    assert not is_on_this_machine(slurm, Where.ENGINE)
    assert not is_on_this_machine(here, Where.JOBS)
