"""A block as three dask tasks. They are given coordinates; voxels never pass through the driver.

read-7-1 --> render-7-1 --> write-7-1          name-block-attempt
             GPU = 1
"""

from __future__ import annotations

from dask.base import annotate
from dask.delayed import Delayed, delayed

from vemdiffuse_pipe.cluster.engines import GPU
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.dask import worker

_read = delayed(worker.read, pure=False)
_compute = delayed(worker.compute, pure=False)
_write = delayed(worker.write, pure=False)


def block_graph(key: str, verb: str, work: Work, attempt: int) -> Delayed:
    """The write task of a block, and what it needs. `verb`: names the second task.

    Names are unique: for a name that it knows dask would return the old failure.
    """
    z, y, x = work.output_box.start
    suffix = f"{key}-{work.block_index}-{z}.{y}.{x}-{attempt}"
    loaded = _read(key, work, dask_key_name=f"read-{suffix}")
    with annotate(resources={GPU: 1}):
        computed = _compute(key, loaded, dask_key_name=f"{verb}-{suffix}")
    stored: Delayed = _write(key, computed, dask_key_name=f"write-{suffix}")
    return stored
