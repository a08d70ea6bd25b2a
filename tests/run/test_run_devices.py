"""Which GPUs there are for workers: as CUDA sees them, one a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cluster.binding import VISIBLE, bind_gpu, visible_devices
from vemdiffuse_pipe.config import RunFile, RunTable
from vemdiffuse_pipe.output.choices import with_device_here

TWO_GPUS = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-bbbb)
"""
ONE_DIVIDED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11111111-aaaa)
  MIG 3g.20gb     Device  0: (UUID: MIG-5c5d01a1-1111)
  MIG 3g.20gb     Device  1: (UUID: MIG-5c5d01a1-2222)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22222222-bbbb)
"""
OLD_MIG = "GPU 0: A100 (UUID: GPU-1-a)\n  MIG 1g.5gb Device 0: (UUID: MIG-GPU-1-a/7/0)\n"
WAYS = {
    "two GPUs": ({}, TWO_GPUS, ["0", "1"]),
    "one of them divided": ({}, ONE_DIVIDED, ["MIG-5c5d01a1-1111", "MIG-5c5d01a1-2222", "1"]),
    "an older driver's instances": ({}, OLD_MIG, ["MIG-GPU-1-a/7/0"]),
    "no driver": ({}, "", []),
    "the job's own": ({VISIBLE: "1"}, TWO_GPUS, ["1"]),
    "the job's instances": ({VISIBLE: "MIG-5c5d01a1-2222, GPU-2"}, TWO_GPUS, ["MIG-5c5d01a1-2222", "GPU-2"]),
    "none for this job": ({VISIBLE: ""}, TWO_GPUS, []),
    "up to what is no device": ({VISIBLE: "0,-1,1"}, TWO_GPUS, ["0"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_devices_are_those_that_cuda_would_see(way: str) -> None:
    environ, listing, expected = WAYS[way]
    assert visible_devices(environ, lambda: listing) == expected


def test_a_worker_is_left_the_instance_of_its_number() -> None:
    environ = {VISIBLE: "MIG-5c5d01a1-1111,MIG-5c5d01a1-2222"}
    bind_gpu("1", RunTable(engine="local", device="cuda"), None, environ)
    assert environ == {VISIBLE: "MIG-5c5d01a1-2222"}


@pytest.mark.parametrize(
    ("stated", "n_workers"), [({"engine": "local"}, 3), ({"engine": "local", "workers": 2}, 2), ({}, 1)]
)
def test_local_workers_are_one_a_gpu_unless_their_number_is_stated(
    stated: dict[str, object], n_workers: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VISIBLE, "0,3,GPU-5")
    table = {"device": "cuda", **stated}
    run_file: RunFile = config.parse(
        {
            "source": {"url": str(tmp_path)},
            "output": {"url": str(tmp_path / "out.zarr")},
            "model": {"precision": "float32"},  # else the GPU is asked whether it has bfloat16
            "run": table,
        }
    )
    assert with_device_here(run_file).run.workers == n_workers
