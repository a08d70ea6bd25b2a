"""Hostile documents and chunks: never a traceback, never a gigabyte, never a look outside the container."""

import bz2
import gzip
import json
import lzma
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from servers import needs_nginx, nginx
from stored_volumes import (
    FORMATS,
    SHAPE,
    VOXELS,
    chunk_files,
    copied,
    cosem_transform,
    n5,
    ome_zarr_04,
    precomputed,
    precomputed_by_cloudvolume,
    write_json,
)
from test_hostile_metadata import changed

from vemdiffuse_pipe.errors import DataError, SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

HERE = Path(__file__).parent
ONE_VOXEL = Box((0, 0, 0), (1, 1, 1))
WHOLE = Box.of_shape(SHAPE)
BY_NAME = {stored.name: stored for stored in FORMATS}
GIGABYTE = 1 << 30
FUZZED = {
    "ome-zarr-0.4": 200,
    "ome-zarr-0.5": 200,
    "ome-zarr-0.5-sharded": 200,
    "zarr-v2-fortran": 200,
    "n5-cosem": 200,
    "n5-viewer": 200,
    "n5-paintera": 200,
    "precomputed-raw": 200,
    "precomputed-png": 200,
    "precomputed-sharded": 200,
    "precomputed-cloudvolume-gz": 200,
    "precomputed-compresso": 30,  # each chunk is decoded by a process of its own
}


@pytest.mark.parametrize("what", ["documents", "chunks"])
@pytest.mark.parametrize("name", FUZZED)
def test_changed_objects_give_a_sentence_in_a_gigabyte(name, what, written, tmp_path):
    stored = BY_NAME[name]
    folder = copied(written(stored), tmp_path / "volume")
    arguments = [str(folder), stored.inside, json.dumps(stored.options), what, str(FUZZED[name])]
    command = [sys.executable, "-W", "error", str(HERE / "fuzzed_reads.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["refused"] + found["read"] == FUZZED[name]
    assert found["refused"] > FUZZED[name] // 10
    assert found["peak_bytes"] < GIGABYTE


N_BOMB = 1 << 30
READ = """
import pathlib, sys
from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source
try:
    open_source(sys.argv[1], voxel_size_nm=(40, 4.3, 4.3)).read(Box((0, 0, 0), (1, 1, 1)))
except VemdiffuseError as error:
    print(type(error).__name__)
status = pathlib.Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""


def of_zeros(compressor, n_bytes=N_BOMB):
    """A stream that decodes to many zeros, made without holding them."""
    piece = bytes(1 << 24)
    return b"".join(compressor.compress(piece) for _ in range(n_bytes >> 24)) + compressor.flush()


def zarr_bomb(compressor, stream):
    def write(path):
        ome_zarr_04(path)
        document = json.loads((path / "s0" / ".zarray").read_text())
        write_json(path / "s0" / ".zarray", document | {"compressor": compressor})
        (path / "s0" / "0" / "0" / "0").write_bytes(stream())

    return write


def n5_bomb(compression, stream, header=(16, 7, 5)):
    def write(path):
        n5(path, cosem_transform(), **compression)
        (path / "0" / "0" / "0").write_bytes(struct.pack(">HHIII", 0, 3, *header) + stream())

    return write


def png_bomb(path):
    precomputed(path, "png")
    chunk = sorted(chunk_files(path))[0]
    side = 1 << 15
    rows = of_zeros(zlib.compressobj(9), side * (side + 1))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    chunk.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(map(png_part, *zip(*parts, strict=True))))
    for other in chunk_files(path):
        other.write_bytes(chunk.read_bytes())


def png_part(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def gz_name_bomb(path):
    precomputed_by_cloudvolume(path, "gzip")
    stream = of_zeros(zlib.compressobj(9, wbits=31))
    for chunk in chunk_files(path):
        chunk.write_bytes(stream)


def compresso_bomb(path):
    import compresso

    precomputed_by_cloudvolume(path, False, encoding="compresso", chunk_size=(64, 64, 64))
    for chunk in chunk_files(path):
        chunk.write_bytes(compresso.compress(np.zeros((2000, 2000, 200), np.uint8, order="F")))


def zeros_by(encode, n_bytes=N_BOMB):
    return lambda: encode(np.zeros(n_bytes, np.uint8).data)


BOMBS = {
    "zarr-gzip": zarr_bomb({"id": "gzip", "level": 1}, lambda: of_zeros(zlib.compressobj(9, wbits=31))),
    "zarr-zlib": zarr_bomb({"id": "zlib", "level": 1}, lambda: of_zeros(zlib.compressobj(9))),
    "zarr-bz2": zarr_bomb({"id": "bz2", "level": 1}, lambda: of_zeros(bz2.BZ2Compressor())),
    "zarr-zstd": zarr_bomb({"id": "zstd", "level": 1}, zeros_by(numcodecs.Zstd(1).encode)),
    "n5-gzip": n5_bomb({"type": "gzip"}, lambda: of_zeros(zlib.compressobj(9, wbits=31))),
    "n5-xz": n5_bomb({"type": "xz", "preset": 1}, lambda: of_zeros(lzma.LZMACompressor(preset=0))),
    "n5-header-of-2^31": n5_bomb({"type": "raw"}, bytes, (2**31 - 1, 1, 1)),
    "n5-header-of-2^93": n5_bomb({"type": "gzip"}, lambda: gzip.compress(b""), (2**31 - 1,) * 3),
    "precomputed-png": png_bomb,
    "precomputed-gz-name": gz_name_bomb,
    "precomputed-compresso": compresso_bomb,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_chunk_that_expands_beyond_its_shape_is_not_expanded(bomb, tmp_path):
    BOMBS[bomb](tmp_path / "volume")
    command = [sys.executable, "-c", READ, str(tmp_path / "volume")]
    raised, peak_kb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert raised == "CorruptDataError"
    assert int(peak_kb) << 10 < 500 << 20


CANARY = 255 - VOXELS
PATHS = {
    "ome-zarr": (
        ome_zarr_04,
        ".zattrs",
        ("multiscales", 0, "datasets", 0, "path"),
        "s0",
    ),
    "n5": (
        lambda path, voxels: n5_group(path, voxels),
        "attributes.json",
        ("multiscales", 0, "datasets", 0, "path"),
        "s0",
    ),
    "precomputed": (precomputed, "info", ("scales", 0, "key"), "8_8_40"),
}


def n5_group(path, voxels):
    n5(path / "s0", {}, voxels)
    write_json(
        path / "attributes.json", {"multiscales": [{"datasets": [{"path": "s0"} | cosem_transform()]}]}
    )


def ways_out(canary, url, inside):
    """Names that lead to the canary, if anyone follows them."""
    yield from (f"../canary/{inside}", f"{inside}/../../canary/{inside}", f"./../canary/{inside}")
    yield from (f"%2e%2e/canary/{inside}", f"..%2fcanary%2f{inside}", f"..\\canary\\{inside}")
    yield from (f"{canary}/{inside}", f"//{canary}/{inside}", f"file://{canary}/{inside}")
    yield from (f"{url}/canary/{inside}", f"s3://canary/{inside}", f"{inside}/|file:{canary}/{inside}")
    yield from (f"{inside}/../../canary/{inside}\0", f"{inside}?/../../canary/{inside}", f"~/{inside}")


@needs_nginx
@pytest.mark.parametrize("name", PATHS)
def test_no_name_leads_out_of_the_container(name, tmp_path):
    write, document, place, inside = PATHS[name]
    www = tmp_path / "www"
    write(www / "volume", voxels=VOXELS)
    write(www / "canary", voxels=CANARY)
    good = json.loads((www / "volume" / document).read_text())
    with nginx(www, tmp_path / "nginx") as url:
        for way in ways_out(www / "canary", url, inside):
            write_json(www / "volume" / document, changed(good, place, way))
            for address in (www / "volume", f"{url}/volume"):
                with pytest.raises(VemdiffuseError):
                    open_source(address).read(WHOLE)
        log = (tmp_path / "nginx" / "access.log").read_text()
        assert "/canary/" not in "".join(line for line in log.splitlines() if "GET /volume" not in line)


@needs_nginx
@pytest.mark.parametrize("to", ["file://{www}/canary", "http://localhost:{port}/canary", "ftp://127.0.0.1/x"])
@pytest.mark.parametrize("what", ["zarr.json", "c/"])
def test_redirect_is_not_followed(to, what, tmp_path):
    """The metadata, or each of the chunks, is said to be elsewhere."""
    www = tmp_path / "www"
    stored = BY_NAME["zarr-v3"]
    stored.write(www / "volume")
    stored.write(www / "canary")
    with nginx(www, tmp_path / "other") as other:
        where = to.format(www=www, port=other.rpartition(":")[2])
        rules = f"location ~ ^/volume/{what}(.*) {{ return 302 {where}/{what}$1; }}"
        with nginx(www, tmp_path / "nginx", rules) as url, pytest.raises(VemdiffuseError) as caught:
            open_source(f"{url}/volume", **stored.options).read(ONE_VOXEL)
    assert "302" in str(caught.value)
    assert "canary" not in (tmp_path / "other" / "access.log").read_text()


def test_shard_index_that_points_outside_is_corrupt(written, tmp_path):
    folder = copied(written(BY_NAME["ome-zarr-0.5-sharded"]), tmp_path / "volume")
    entry = np.array([1 << 40, 1 << 20], "<u8").view(np.uint8)
    index = bytes(numcodecs.CRC32C(location="end").encode(np.tile(entry, 12)))
    for shard in chunk_files(folder):
        shard.write_bytes(shard.read_bytes()[: -len(index)] + index)
    with pytest.raises(DataError, match="cannot be read"):
        open_source(folder).read(WHOLE)


def test_huge_chunk_is_refused_before_it_is_made(tmp_path):
    precomputed(tmp_path / "volume")
    info = json.loads((tmp_path / "volume" / "info").read_text())
    hostile = changed(info, ("scales", 0, "chunk_sizes", 0), [1 << 15, 1 << 15, 1])
    write_json(tmp_path / "volume" / "info", hostile)
    with pytest.raises(SourceError, match="512 MB"):
        open_source(tmp_path / "volume")
