"""What a batch job or a container may use is what is available, not what the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from vemdiffuse_pipe.cluster.resources import memory_left_to_group


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


def test_the_tightest_group_above_a_process_counts(tmp_path: Path) -> None:
    mine = tmp_path / "cgroup"
    mine.write_text("0::/slurm/job_7/step_0\n")
    write(tmp_path / "groups" / "slurm", memory__max="9000", memory__current="3500")
    write(tmp_path / "groups" / "slurm" / "job_7", memory__max="6000", memory__current="2000")
    write(tmp_path / "groups" / "slurm" / "job_7" / "step_0", memory__max="max", memory__current="1500")
    assert memory_left_to_group(tmp_path / "groups", mine) == 4000


def test_groups_of_version_1_are_known_too(tmp_path: Path) -> None:
    mine = tmp_path / "cgroup"
    mine.write_text("9:name=systemd:/\n4:cpu,memory:/docker/a1\n")
    group = tmp_path / "groups" / "memory" / "docker" / "a1"
    write(group, memory__limit_in_bytes="5000", memory__usage_in_bytes="1200")
    assert memory_left_to_group(tmp_path / "groups", mine) == 3800


@pytest.mark.parametrize("content", ["", "0::/nothing/here\n"])
def test_without_a_limit_there_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "cgroup").write_text(content)
    assert memory_left_to_group(tmp_path / "groups", tmp_path / "cgroup") == float("inf")
    assert memory_left_to_group(tmp_path / "groups", tmp_path / "no_such_file") == float("inf")
