"""Run files: what is wrong is named, what is right comes back."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vemdiffuse_pipe.config import dump, load, parse
from vemdiffuse_pipe.errors import ConfigError

BASE = {"source": {"url": "a"}, "output": {"url": "b"}}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"model": {"sede": 1}}, "did you mean seed"),
        ({"modle": {}}, "did you mean model"),
        ({"run": {"xyzzy": 1}}, "known: block_shape"),
        ({"source": {}}, "source.url is missing"),
        ({"model": {"seed": -1}}, "model.seed"),
        ({"model": {"samples": 0}}, "model.samples"),
        ({"model": {"samples": "many"}}, "model.samples"),
        ({"source": {"url": "a", "voxel_size_nm": [1, 2]}}, "voxel_size_nm"),
        ({"source": {"url": "a", "voxel_size_nm": [1, 2, float("nan")]}}, "voxel_size_nm"),
        ({"run": {"engine": "threds"}}, "run.engine"),
        ({"run": {"block_shape": [0, 1, 1]}}, "block_shape"),
        ({"run": {"engine": "tcp://host"}}, "run.engine.*tcp://host:8786"),
        ({"run": {"engine": "tcp://user:hunter2@host:1"}}, r"run.engine = 'tcp://\.\.\.': threads"),
        ({"cluster": {"queue": "gpu"}}, "cluster.memory_gb is missing"),
        ({"cluster": {"memory_gb": 1, "quue": "gpu"}}, "did you mean queue"),
        (
            {"cluster": {"memory_gb": 1, "min_jobs": 9, "max_jobs": 8}},
            "^cluster: min_jobs 9 is more than max_jobs 8",
        ),
        (
            {"cluster": {"memory_gb": 1, "walltime": "00:00:30"}},
            "^cluster: walltime 00:00:30 is under a minute",
        ),
        (
            {"cluster": {"memory_gb": 1, "walltime": "later"}},
            "^cluster.walltime = 'later': hours, minutes and seconds are needed, 04:00:00",
        ),
        ({"cluster": {"memory_gb": 1, "walltime": "04:60:00"}}, "are needed"),
        ({"cluster": {"memory_gb": 1, "queue": "gpu\n#SBATCH -x"}}, "cluster.queue"),
        ({"cluster": {"memory_gb": 1, "prologue": ["a\nb"]}}, "one printable line"),
        ({"cluster": {"memory_gb": 1, "extra_directives": ["#SBATCH -x"]}}, "only what follows"),
        ({"cluster": {"memory_gb": 1, "prologue": ["export AWS_SECRET_ACCESS_KEY=ab"]}}, "credentials"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(tables: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse({**BASE, **tables})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("walltime", "as_said", "seconds"),
    [("04:00:00", "04:00:00", 14400), ("1-02:03:04", "26:03:04", 93784), ("0-00:30:00", "00:30:00", 1800)],
)
def test_a_walltime_may_have_days_and_every_scheduler_reads_it(
    walltime: str, as_said: str, seconds: int
) -> None:
    cluster = parse({**BASE, "cluster": {"memory_gb": 1, "walltime": walltime}}).cluster
    assert cluster is not None
    assert (cluster.walltime, cluster.walltime_s) == (as_said, seconds)


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 2**62), st.floats(0.1, 1e6))
def test_a_run_file_survives_being_written_and_read(url: str, name: str, seed: int, size: float) -> None:
    run_file = parse(
        {
            "source": {"url": url, "voxel_size_nm": [size, 1.5, 2], "rejected_sections": [3, 5]},
            "output": {"url": "b"},
            "model": {"name": name, "seed": seed},
            "cluster": {"memory_gb": size, "prologue": ["module load a", "b"]},
        }
    )
    assert parse(tomllib.loads(dump(run_file))) == run_file


def test_a_credential_is_not_said_again() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**BASE, "cluster": {"memory_gb": 1, "prologue": ["export AWS_SECRET_ACCESS_KEY=abcd"]}})
    assert "abcd" not in str(caught.value)


def test_files_that_are_no_run_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.toml").write_text("[source\nurl=")
    for name, words in [
        ("none.toml", "no run file"),
        ("binary.toml", "cannot be read"),
        ("broken.toml", "not TOML"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load(tmp_path / name)


HOSTILE = {
    "5000 digits": ("[model]\nseed = " + "9" * 5000, "too many digits"),
    "hexadecimal digits": ("[source]\nurl = 'a'\nrejected_sections = [0x" + "f" * 90_000 + "]", "rejected"),
    "3000 brackets": ("a = " + "[" * 3000, "nested too deeply"),
    "2 MB": ("#" * (2 << 20), "larger than 1 MB"),
    "contrast nan": ('[source]\nurl = "a"\ncontrast = [nan, 30.0]', "source.contrast"),
    "contrast inf": ('[source]\nurl = "a"\ncontrast = [inf, 30.0]', "source.contrast"),
    "window inf": ('[source]\nurl = "a"\nwindow = [-inf, 30.0]', "source.window"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_run_file_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    text, words = HOSTILE[case]
    (tmp_path / "run.toml").write_text(f'{text}\n[output]\nurl = "b"\n')
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path / "run.toml")
    assert len(str(caught.value)) < 400


def test_what_never_ends_is_no_run_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match="no regular file"):
            load(path)
