"""Stored shards against receipts: which are as a receipt says, and which are as none says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.records.receipts import Receipt
from vemdiffuse_pipe.records.shards import ShardSet

N_READERS = 4

Holds: TypeAlias = Callable[[Box, Mapping[str, str]], bool]


def compare_shards(shards: BlockGrid, receipts: Iterator[Receipt], holds: Holds) -> tuple[ShardSet, set[int]]:
    """(right, wrong) shards of those that have a receipt. Constant memory, a few readers.

    `holds`: whether a box, voxels zyx, is stored with these checksums, by array; called by several threads.
    """
    right, wrong = ShardSet(shards), set[int]()
    claims = ((shard, i, receipt) for receipt in receipts for i, shard in enumerate(receipt.shards))

    def is_right(claim: tuple[int, int, Receipt]) -> bool:
        shard, i, receipt = claim
        return shard in right or holds(shards.box(shard), _stated(receipt, i))

    with ThreadPoolExecutor(N_READERS) as pool:
        while batch := list(islice(claims, 8 * N_READERS)):
            for (shard, *_), good in zip(batch, pool.map(is_right, batch), strict=True):
                if good:
                    right.add(shard)
                    wrong.discard(shard)
                elif shard not in right:
                    wrong.add(shard)
    return right, wrong


def _stated(receipt: Receipt, position: int) -> dict[str, str]:
    """The checksums that a receipt states for one of its shards, by array."""
    return {array: sums[position] for array, sums in receipt.checksums.items()}
