"""A mask: shards outside are never read, rendered or written, and nobody takes them for missing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from small_runs import BLOCK, N_SHARDS, SHAPE, SHARD, shard_file, small_run, stored

from vemdiffuse_pipe import config, open_source
from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import OutputError, PlanError, SourceError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.geometry.grid import BlockGrid
from vemdiffuse_pipe.monitor.status import status
from vemdiffuse_pipe.output import mask as masks
from vemdiffuse_pipe.output.mask import find_outside, read_outside
from vemdiffuse_pipe.records.folder import RECORDS, records_of
from vemdiffuse_pipe.records.shards import ShardSet
from vemdiffuse_pipe.running.reconstruct import prepare, retry, run
from vemdiffuse_pipe.running.verify import verify
from vemdiffuse_pipe.storage import create_sink, open_mask, parse_address
from vemdiffuse_pipe.testing import VOXEL_SIZE_NM, position_coded

# The output: 31 x 37 x 53 voxels of 8 nm, its corner at 16, 0, 0 nm.
MASK_NM = ("48", "40", "25")  # divides neither voxels nor shards


def write_mask(
    folder: Path, voxels: np.ndarray, size_nm: tuple[str, str, str] = MASK_NM, offset: int = 1
) -> str:
    """Labels as uint64 precomputed with an `offset` of so many voxels along each axis."""
    z, y, x = (float(s) for s in size_nm)
    array = ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": str(folder / "mask")},
            "multiscale_metadata": {"data_type": "uint64", "num_channels": 1, "type": "segmentation"},
            "scale_metadata": {
                "size": voxels.shape[::-1],
                "encoding": "compressed_segmentation",
                "compressed_segmentation_block_size": [8, 8, 8],
                "chunk_size": [4, 4, 4],
                "resolution": [x, y, z],
                "voxel_offset": [offset] * 3,
            },
            "create": True,
        }
    ).result()
    array[..., 0].write(voxels.T).result()  # chunks of zeros are left out
    return f"precomputed://{folder / 'mask'}"


def write_in_chunks(folder: Path, chunk: Zyx) -> str:
    """The source of `small_run` in smaller chunks."""
    sink = create_sink(
        folder / "source.zarr",
        Frame(SHAPE, VOXEL_SIZE_NM),
        arrays=("em",),
        chunk_shape=chunk,
        shard_shape=chunk,
        attributes={},
        provenance=np.ones(SHAPE[0], np.uint8),
    )
    sink.write("em", Box.of_shape(SHAPE), position_coded(SHAPE))
    return str(folder / "source.zarr" / "em")


def some_labels() -> np.ndarray:
    """A few labels, one beyond 2^32 whose lower half is 0."""
    labels = np.zeros((5, 8, 17), np.uint64)
    labels[1, 2, 3] = 1 << 40
    labels[3, 5:7, 12] = 7
    labels[0, 0, 0] = 9
    return labels


def masked_run(folder: Path, labels: np.ndarray, **tables: dict[str, object]) -> RunFile:
    """A small run with a mask on disk."""
    plain = small_run(folder, **tables)
    tables = {**plain.model_dump(exclude_none=True), "mask": {"url": write_mask(folder, labels)}}
    return config.parse(tables)


def wanted_shards(labels: np.ndarray, size_nm: tuple[str, str, str], shards: BlockGrid) -> set[int]:
    """The same by looking at every pair of a shard and a voxel of the mask."""
    output_corner = [Fraction(16), Fraction(0), Fraction(0)]
    found = set()
    for label in np.argwhere(labels):
        first = [(i + 1) * Fraction(s) for i, s in zip(label.tolist(), size_nm, strict=True)]
        stop = [a + Fraction(s) for a, s in zip(first, size_nm, strict=True)]
        for shard in range(shards.n_blocks):
            box = shards.box(shard)
            sides = zip(box.start, box.stop, output_corner, first, stop, strict=True)
            if all(c + 8 * a < q and p < c + 8 * b for a, b, c, p, q in sides):
                found.add(shard)
    return found


def test_a_shard_is_wanted_where_it_touches_a_label(tmp_path: Path) -> None:
    labels = some_labels()
    run_file = masked_run(tmp_path, labels)
    _, plan = prepare(run_file)
    expected = wanted_shards(labels, MASK_NM, plan.shards)
    assert 0 < len(expected) < N_SHARDS
    for max_voxels in (1 << 24, 8, 1):  # read at once, in parts, voxel by voxel
        outside = find_outside(plan, open_mask(f"{tmp_path / 'mask'}"), max_voxels)
        assert {shard for shard in range(N_SHARDS) if shard not in outside} == expected


@pytest.mark.parametrize("block", [BLOCK, (8, 16, 16), (32, 48, 64)])
def test_what_is_wanted_is_as_in_the_run_without_a_mask_and_the_rest_is_not_there(
    tmp_path: Path, block: Zyx
) -> None:
    run_file = masked_run(tmp_path, some_labels(), run={"block_shape": block})
    whole = small_run(tmp_path, output={"url": str(tmp_path / "whole.zarr")})
    assert run(whole).exit_code == 0
    outcome = run(run_file)
    assert outcome.exit_code == 0
    _, plan = prepare(run_file)
    wanted = wanted_shards(some_labels(), MASK_NM, plan.shards)
    voxels = stored(whole)
    for shard in range(N_SHARDS):
        box = plan.shards.box(shard)
        file = shard_file(run_file, *(a // s for a, s in zip(box.start, SHARD, strict=True)))
        assert file.exists() == (shard in wanted)
        if shard not in wanted:
            voxels[box.slices] = 0
    read = open_source(f"{run_file.output.url}/em", missing="fill").read(plan.output.box)
    np.testing.assert_array_equal(read, voxels)


def test_what_is_outside_is_never_read(tmp_path: Path) -> None:
    labels = np.zeros((5, 8, 17), np.uint64)
    labels[0, 0, 0] = 1  # planes 4 to 10, rows 5 to 10, columns 3 to 7
    run_file = masked_run(tmp_path, labels)
    chunks = Path(write_in_chunks(tmp_path / "chunks", (7, 16, 16))) / "0" / "c" / "0"
    for chunk in chunks.glob("*/*"):
        if (chunk.parent.name, chunk.name) != ("0", "0"):
            chunk.unlink()
    tables = run_file.model_dump(exclude_none=True)
    run_file = config.parse({**tables, "source": {"url": str(chunks.parents[2]), "bad_sections": "keep"}})
    outcome = run(run_file)
    assert (outcome.exit_code, outcome.n_done, outcome.n_skipped) == (0, 2, 22)


def test_status_verify_and_the_outcome_tell_skipped_from_missing(
    tmp_path: Path,
) -> None:
    run_file = masked_run(tmp_path, some_labels(), run={"block_shape": (8, 16, 16)})
    _, plan = prepare(run_file)
    wanted = wanted_shards(some_labels(), MASK_NM, plan.shards)
    n_voxels = sum(plan.shards.box(shard).n_voxels for shard in wanted)
    begun = run(run_file, max_blocks=1)
    assert (begun.exit_code, begun.n_done, begun.n_skipped) == (1, 1, N_SHARDS - len(wanted))
    assert verify(run_file.output.url).n_missing == len(wanted) - 1
    ended = run(run_file)
    assert (ended.exit_code, ended.n_done) == (0, len(wanted))
    found, state = verify(run_file.output.url), status(run_file.output.url)
    assert (found.is_good, found.n_missing, found.n_skipped) == (True, 0, N_SHARDS - len(wanted))
    assert (state.n_blocks_done, state.n_blocks_skipped) == (len(wanted), N_SHARDS - len(wanted))
    assert state.voxels_done == state.voxels_total == n_voxels


def test_a_mask_of_nothing_skips_everything_and_is_complete(tmp_path: Path) -> None:
    run_file = masked_run(tmp_path, np.zeros((5, 8, 17), np.uint64))
    outcome = run(run_file)
    assert (outcome.exit_code, outcome.n_done, outcome.n_skipped, outcome.n_rendered) == (0, 0, 24, 0)
    assert verify(run_file.output.url).is_good
    assert status(run_file.output.url).voxels_total == 0


def test_another_mask_is_refused_by_what_differs_in_it(tmp_path: Path) -> None:
    run_file = masked_run(tmp_path, some_labels())
    run(run_file, max_blocks=0)
    tables = run_file.model_dump(exclude_none=True)
    moved = (tmp_path / "mask").rename(tmp_path / "other")
    with pytest.raises(OutputError, match=r"belongs to another run: mask url \S+/mask -> \S+/other; choose"):
        run(config.parse({**tables, "mask": {"url": f"precomputed://{moved}"}}))
    with pytest.raises(OutputError, match=r"belongs to another run: mask url \S+/mask -> none; choose"):
        run(config.parse({name: table for name, table in tables.items() if name != "mask"}))


def test_a_mask_of_everything_skips_nothing(tmp_path: Path) -> None:
    plain = small_run(tmp_path, output={"url": str(tmp_path / "plain.zarr")})
    everything = write_mask(tmp_path, np.ones((9, 8, 8), np.uint64), ("31", "37", "53"), offset=0)
    tables = small_run(tmp_path).model_dump(exclude_none=True)
    run_file = config.parse({**tables, "mask": {"url": everything}})
    assert run(plain).exit_code == 0
    outcome = run(run_file)
    assert (outcome.exit_code, outcome.n_done, outcome.n_skipped) == (0, 24, 0)
    np.testing.assert_array_equal(stored(run_file), stored(plain))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "bool"])
def test_a_mask_may_be_of_any_type(tmp_path: Path, dtype: str) -> None:
    values = np.zeros((3, 4, 5), dtype)
    values[1, 2, 3] = 1
    if dtype == "float32":
        values[0, 0, 0] = np.nan
    array = ts.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": str(tmp_path / "mask.zarr")}},
        create=True,
        dtype=dtype,
        shape=values.shape,
    ).result()
    array.write(values).result()
    mask = open_mask(tmp_path / "mask.zarr", voxel_size_nm=(1, 1, 1))
    np.testing.assert_array_equal(mask.read(mask.spec.frame.box), np.nan_to_num(values) != 0)


def test_a_mask_of_a_region_lies_at_its_place(tmp_path: Path) -> None:
    labels = np.zeros((5, 8, 17), np.uint64)
    labels[2, 3, 8] = (
        1  # 144 to 192, 160 to 200, 225 to 250 nm: planes 16 to 21, rows 20 to 24, columns 28 to 31
    )
    run_file = masked_run(tmp_path, labels)
    tables = run_file.model_dump(exclude_none=True)
    tables["source"]["region"] = [[3, 4, 0], [7, 37, 53]]  # planes from 15, rows from 4
    _, plan = prepare(config.parse(tables))
    outside = find_outside(plan, open_mask(f"{tmp_path / 'mask'}"))
    wanted = {shard for shard in range(plan.shards.n_blocks) if shard not in outside}
    assert wanted == set(plan.shards.touching(Box((1, 16, 28), (7, 21, 32))))


def test_the_mask_is_read_once_and_kept_with_the_output(tmp_path: Path) -> None:
    run_file = masked_run(tmp_path, some_labels())
    assert run(run_file, max_blocks=1).exit_code == 1
    before = read_outside(records_of(parse_address(run_file.output.url)), prepare(run_file)[1].shards)
    (tmp_path / "mask").rename(tmp_path / "away")
    assert run(run_file).exit_code == 0
    assert retry(run_file.output.url).n_rendered == 0
    assert len(before) == status(run_file.output.url).n_shards_skipped


def test_an_output_goes_on_only_with_its_own_mask(tmp_path: Path) -> None:
    run_file = masked_run(tmp_path, some_labels())
    assert run(run_file, max_blocks=1).exit_code == 1
    with pytest.raises(OutputError, match=r"mask .* -> none"):
        run(run_file.model_copy(update={"mask": None}))


def test_a_mask_that_lies_elsewhere_or_nowhere_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    elsewhere = write_mask(tmp_path, np.ones((2, 2, 2), np.uint64), ("300", "300", "500"))
    tables = small_run(tmp_path).model_dump(exclude_none=True)
    with pytest.raises(PlanError, match="shares no space with the output: it begins at 300 x 300 x 500 nm"):
        run(config.parse({**tables, "mask": {"url": elsewhere}}))
    with pytest.raises(SourceError, match="does not exist"):
        run(config.parse({**tables, "mask": {"url": str(tmp_path / "nothing")}}))
    assert not Path(tables["output"]["url"]).exists()


def test_a_damaged_record_of_what_is_outside_is_refused(tmp_path: Path) -> None:
    run_file = masked_run(tmp_path, some_labels())
    assert run(run_file).exit_code == 0
    record = Path(run_file.output.url) / RECORDS / masks.FILE
    record.write_bytes(record.read_bytes()[:-1])
    with pytest.raises(OutputError, match="is damaged"):
        status(run_file.output.url)


def test_bits_of_another_grid_are_refused() -> None:
    grid = BlockGrid((3, 3, 3), (1, 1, 1))
    members = ShardSet(grid)
    members.add(26)
    assert 26 in ShardSet.of_bits(grid, members.bits)
    for wrong in (members.bits[:-1], members.bits + b"\0", members.bits[:-1] + b"\x08"):
        with pytest.raises(OutputError, match="27 shards"):
            ShardSet.of_bits(grid, wrong)
