"""Sections that hold no usable data, found before a run starts: skipped and interpolated across, or refused.

Which sections are used changes every plane around them, so it is decided once, for all blocks, and stored
with the output: a block that finds a hole later fails, it never decides for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.storage.retry import RetryPolicy, with_retries
from vemdiffuse_pipe.survey.bad_sections import sections_to_reject
from vemdiffuse_pipe.volume import Source

N_READERS = 8
CHUNKS_AT_ONCE = 1024


def without_lost_sections(plan: Plan, source: Source) -> Plan:
    """The plan without the sections that its run file wants bridged: bad ones, and those with a hole.

    Raises PlanError where the model cannot bridge them, SourceError for bad ones that are not to be bridged,
    and TransientError.
    """
    table = plan.run_file.source
    plan = without_sections(plan, sections_to_reject(table, source, plan.gaps.rejected))
    if "bridge" not in (table.missing, table.corrupt):
        return plan
    lost = find_lost_sections(source, missing=table.missing == "bridge", corrupt=table.corrupt == "bridge")
    return without_sections(plan, lost)


def without_sections(plan: Plan, sections: tuple[int, ...]) -> Plan:
    """The plan that bridges `sections` too. Raises PlanError where the model cannot."""
    rejected = tuple(sorted({*plan.gaps.rejected, *sections}))
    if rejected == plan.gaps.rejected:
        return plan
    stated = plan.run_file.source.rejected_sections
    measured = tuple(section for section in rejected if section not in stated)
    return make_plan(
        plan.run_file, plan.source, plan.card, replace(plan.measured, rejected_sections=measured)
    )


def find_lost_sections(source: Source, *, missing: bool, corrupt: bool) -> tuple[int, ...]:
    """Sections with a chunk that is absent (`missing`) or cannot be decoded (`corrupt`), ascending.

    Every chunk is read once: there is no other way to know that it decodes. Constant memory.
    """
    chunks = BlockGrid(source.spec.shape, source.spec.chunk_shape)

    def lost_in(box: Box) -> range:
        try:
            with_retries(lambda: source.read(box), RetryPolicy(), lambda reason: None)
        except MissingDataError:
            return range(box.start[0], box.stop[0]) if missing else range(0)
        except CorruptDataError:
            return range(box.start[0], box.stop[0]) if corrupt else range(0)
        return range(0)

    lost: set[int] = set()
    with ThreadPoolExecutor(N_READERS) as pool:
        for batch in _batches(chunks):
            lost.update(*pool.map(lost_in, batch))
    return tuple(sorted(lost))


def _batches(chunks: BlockGrid) -> Iterator[list[Box]]:
    boxes = map(chunks.box, range(chunks.n_blocks))
    while batch := list(islice(boxes, CHUNKS_AT_ONCE)):
        yield batch
