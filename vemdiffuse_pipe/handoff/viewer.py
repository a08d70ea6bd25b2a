"""An output in neuroglancer: served from this machine, to whoever has the address with its token.

output on a disk     a file server on loopback, with a random token in its path
output on a store    read by the page itself, where it is public
TIFF and its like    read here, a piece at a time, for the page: neuroglancer does not know the format
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vemdiffuse_pipe.config import SourceTable
from vemdiffuse_pipe.errors import ConfigError, DataError, InputError, OutputError
from vemdiffuse_pipe.geometry.box import Box, Zyx
from vemdiffuse_pipe.geometry.frame import Nm, exact_nm
from vemdiffuse_pipe.handoff import chromium
from vemdiffuse_pipe.handoff.views import ORDER, Layer, Layout, public_link, state
from vemdiffuse_pipe.output.description import n_missing_blocks
from vemdiffuse_pipe.output.preparation import open_run_source
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.storage import StoredSink, open_sink, parse_address
from vemdiffuse_pipe.storage.address import Address
from vemdiffuse_pipe.storage.source import find_volume
from vemdiffuse_pipe.volume import Source, Voxels

if TYPE_CHECKING:
    import neuroglancer

LOOPBACK = "127.0.0.1"
PICTURE_PX = (1200, 900)
SUFFIXES = {
    "ome-zarr 0.5": "zarr3",
    "zarr v3": "zarr3",
    "ome-zarr 0.4": "zarr2",
    "zarr v2": "zarr2",
    "n5": "n5",
    "precomputed": "neuroglancer-precomputed",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a viewer is given."""

    layers: tuple[Layer, ...]
    """Layers that the page reads by itself, addresses complete."""
    read_here: Source | None
    """The source, where the page does not know its format."""
    missing: tuple[str, ...]
    """What is not there yet, or cannot be shown: a sentence each."""


def view_picture(output: str, position_nm: Nm | None = None, layout: Layout = "4panel") -> bytes:
    """A PNG of `output` in the viewer. Raises OutputError, ConfigError without a browser, DataError."""
    chromium.find_chromium()
    with serve(output, position_nm, layout) as (viewer, _):
        return chromium.screenshot(viewer, PICTURE_PX)


def view_link(output: str, position_nm: Nm | None = None, layout: Layout = "4panel") -> str:
    """The address of the public neuroglancer page that shows `output`.

    Raises OutputError for an output on a disk, which no other machine can read.
    """
    sink, address = open_sink(output), parse_address(output)
    if address.is_local:
        raise OutputError(
            f"{output} lies on this machine's disk, where a public page cannot read it; put it on a public "
            "store (s3://, gs://, https://), or use `vemdiffuse view` without --url"
        )
    images = tuple(_image(name, f"{_remote(address)}/{name}", sink.spec.format) for name in sink.arrays)
    return public_link(state(images, sink.spec.frame, position_nm, layout))


@contextmanager
def serve(
    output: str, position_nm: Nm | None = None, layout: Layout = "4panel"
) -> Iterator[tuple[neuroglancer.Viewer, Shown]]:
    """A viewer of `output` on loopback, for as long as the context lasts, and what it shows.

    Every layer's metadata is read first, so that none of them is waited for in vain. Raises OutputError or
    SourceError where an array cannot be read, ConfigError where neuroglancer is not installed.
    """
    neuroglancer = _neuroglancer()
    sink = open_sink(output)
    with ExitStack() as servers:
        servers.callback(neuroglancer.stop)
        shown = _shown(sink, parse_address(output), servers)
        viewer = neuroglancer.Viewer()
        viewer.set_state(state(shown.layers, sink.spec.frame, position_nm, layout))
        if shown.read_here is not None:
            _put_below(viewer, shown.read_here)
        yield viewer, shown


def _shown(sink: StoredSink, address: Address, servers: ExitStack) -> Shown:
    for name in sink.arrays:
        find_volume(address / name)
    layers = tuple(_image(name, _url(address / name, servers), sink.spec.format) for name in sink.arrays)
    try:
        run = open_run_output(str(address))
        source = open_run_source(run.run_file)
    except (InputError, DataError) as error:
        return Shown(layers, None, (f"source: {error}",))
    n_missing = n_missing_blocks(run)
    missing = (f"{n_missing:,} of {run.blocks.n_blocks:,} blocks: not there yet",) if n_missing else ()
    if not _is_read_by_the_page(source, run.run_file.source):
        return Shown(layers, source, missing)
    below = _image("source", _url(parse_address(source.spec.url), servers), source.spec.format)
    return Shown((below, *layers), None, missing)


def _is_read_by_the_page(source: Source, table: SourceTable) -> bool:
    """True where the page knows the format, and the metadata say all that the run was told of the source."""
    is_told_more = (table.voxel_size_nm, table.channel, table.window) != (None, None, None)
    return source.spec.format in SUFFIXES and not is_told_more


def _image(name: str, url: str, stored_format: str) -> Layer:
    layer = Layer(name, f"{url}/|{SUFFIXES[stored_format]}:")
    if name in ("uncertainty", "sample_spread"):
        return replace(layer, kind="uncertainty")
    if name not in ORDER:
        return replace(layer, kind="labels")
    return replace(layer, is_visible=name != "sample")


def _url(address: Address, servers: ExitStack) -> str:
    """Where a page finds the folder at `address`; a folder on a disk gets a server of its own."""
    if not address.is_local:
        return _remote(address)
    from neuroglancer.static_file_server import StaticFileServer

    server = StaticFileServer(str(Path(address.path).absolute()), bind_address=LOOPBACK, daemon=True)
    return str(servers.enter_context(server)).rstrip("/")


def _remote(address: Address) -> str:
    """An address as browsers know it: a store with an endpoint of its own is a web server."""
    return str(address).removeprefix("s3+").rstrip("/")


class _Piecewise:
    """A source as neuroglancer reads arrays: x, y, z, a piece at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.shape = source.spec.shape[::-1]
        self.dtype, self.ndim, self.size = np.dtype(np.uint8), 3, int(np.prod(self.shape))

    def __getitem__(self, key: tuple[slice, ...]) -> Voxels:
        spans = [part.indices(n)[:2] for part, n in zip(key, self.shape, strict=True)][::-1]
        (z, z_stop), (y, y_stop), (x, x_stop) = spans
        return self._source.read(Box((z, y, x), (z_stop, y_stop, x_stop))).T


def _put_below(viewer: neuroglancer.Viewer, source: Source) -> None:
    """Show `source`, read by this process, below all other layers."""
    neuroglancer = _neuroglancer()
    frame = source.spec.frame
    space = neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="nm", scales=[float(s) for s in frame.voxel_size_nm[::-1]]
    )
    offset: Zyx = tuple(round(c / s) for c, s in zip(frame.corner_nm, frame.voxel_size_nm, strict=True))  # type: ignore[assignment]
    volume = neuroglancer.LocalVolume(
        _Piecewise(source),
        dimensions=space,
        volume_type="image",
        voxel_offset=offset[::-1],
        downsampling=None,
    )
    with viewer.txn() as shown:
        above = list(shown.layers)
        del shown.layers[:]
        shown.layers.append(name="source", layer=neuroglancer.ImageLayer(source=volume))
        shown.layers.extend(above)


def _neuroglancer() -> Any:
    try:
        import neuroglancer
    except ImportError:
        raise ConfigError(
            "the viewer needs neuroglancer, which is not installed; `pip install 'vemdiffuse_pipe[view]'` "
            "brings it"
        ) from None
    return neuroglancer


def position(values: tuple[float, float, float] | None) -> Nm | None:
    """A place in nm, z y x, exact."""
    return None if values is None else exact_nm(values)
