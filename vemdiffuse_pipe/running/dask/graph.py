"""A block as three dask tasks. They are given coordinates; voxels never pass through the driver.

read-7-1 --> render-7-1 --> write-7-1          name-block-attempt
             GPU = 1
"""

from __future__ import annotations

from dask.base import annotate
from dask.delayed import Delayed, delayed

from vemdiffuse_pipe.cluster.engines import GPU
from vemdiffuse_pipe.records.shards import Work
from vemdiffuse_pipe.running.dask import worker as workers

_read = delayed(workers.read, pure=False)
_render = delayed(workers.render, pure=False)
_write = delayed(workers.write, pure=False)


def block_graph(key: str, work: Work, attempt: int) -> Delayed:
    """The write task of a block, and what it needs. Names are unique: dask would return an old failure."""
    z, y, x = work.output_box.start
    suffix = f"{key}-{work.block_index}-{z}.{y}.{x}-{attempt}"
    sections = _read(key, work.block_index, work.output_box, dask_key_name=f"read-{suffix}")
    with annotate(resources={GPU: 1}):
        rendered = _render(key, sections, dask_key_name=f"render-{suffix}")
    stored: Delayed = _write(key, rendered, dask_key_name=f"write-{suffix}")
    return stored
