"""What every source keeps: subclass `SourceConformance`, and provide a source and what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.volume import Source, Voxels


def random_boxes(shape: Zyx, n: int) -> Iterator[Box]:
    """`n` boxes inside a volume, none of them empty, always the same."""
    rng = np.random.default_rng(7)
    for _ in range(n):
        ends = np.sort([rng.choice(size + 1, 2, replace=False) for size in shape], axis=1)
        (z, z_stop), (y, y_stop), (x, x_stop) = ends.tolist()
        yield Box((z, y, x), (z_stop, y_stop, x_stop))


class SourceConformance:
    """The claims, as tests. A subclass provides the fixtures `source`, `voxels` and `frame`.

    >>> class TestMySource(SourceConformance):
    ...     @pytest.fixture
    ...     def voxels(self) -> Voxels:
    ...         return position_coded((5, 7, 11))
    ...     @pytest.fixture
    ...     def frame(self) -> Frame:
    ...         return Frame((5, 7, 11), exact_nm([40, 8, 8]))
    ...     @pytest.fixture
    ...     def source(self, voxels: Voxels) -> Source:
    ...         return MySource(voxels)
    """

    def test_its_frame_is_exact(self, source: Source, frame: Frame) -> None:
        """Shape, voxel size and corner, as fractions."""
        assert source.spec.frame == frame

    def test_its_chunks_make_whole_shards(self, source: Source) -> None:
        """The unit of writing is made of units of reading."""
        for chunk, shard in zip(source.spec.chunk_shape, source.spec.shard_shape, strict=True):
            assert chunk > 0
            assert shard % chunk == 0

    def test_the_whole_volume_is_what_was_written(self, source: Source, voxels: Voxels) -> None:
        """uint8, zyx, contiguous."""
        read = source.read(source.spec.frame.box)
        assert read.dtype == np.uint8
        assert read.flags.c_contiguous
        assert np.array_equal(read, voxels)

    def test_any_box_is_that_part_of_the_whole(self, source: Source, voxels: Voxels) -> None:
        """Wherever chunks end."""
        for box in random_boxes(source.spec.shape, 30):
            assert np.array_equal(source.read(box), voxels[box.slices]), box

    def test_an_empty_box_has_no_voxels(self, source: Source) -> None:
        """Of the shape of the box all the same."""
        _, y, x = source.spec.shape
        assert source.read(Box((1, 1, 1), (1, y, x))).shape == (0, y - 1, x - 1)

    def test_what_was_read_may_be_changed(self, source: Source, voxels: Voxels) -> None:
        """No reader is handed what another one will read."""
        source.read(source.spec.frame.box)[...] ^= 255
        assert np.array_equal(source.read(source.spec.frame.box), voxels)

    def test_threads_read_what_one_reads(self, source: Source, voxels: Voxels) -> None:
        """Several reads at once."""
        boxes = list(random_boxes(source.spec.shape, 40))
        with ThreadPoolExecutor(4) as threads:
            for box, read in zip(boxes, threads.map(source.read, boxes), strict=True):
                assert np.array_equal(read, voxels[box.slices]), box
