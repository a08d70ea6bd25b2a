"""Each codec that is decoded here gives back what was encoded, and never more than it may."""

import numcodecs
import numpy as np
import pytest

from vemdiffuse_pipe.errors import CorruptDataError
from vemdiffuse_pipe.storage import codecs, faults

DATA = np.random.default_rng(0).integers(0, 9, 5000, np.uint8).tobytes()
CODECS = {name: {"id": name} for name in codecs.DECODERS} | {"shuffle": {"id": "shuffle", "elementsize": 2}}
COMPRESSORS = ["zlib", "gzip", "bz2", "lzma", "lz4", "zstd", "blosc"]


def encoded(name, data):
    return bytes(numcodecs.get_codec(dict(CODECS[name])).encode(data))


def whole(data):
    """`data`, of which nothing is missing: that is what becomes voxels."""
    if len(data) != len(DATA):
        raise ValueError(f"{len(data)} bytes")
    return data


@pytest.mark.parametrize("name", CODECS)
def test_what_was_encoded_comes_back(name):
    assert codecs.decode(CODECS[name], encoded(name, DATA), len(DATA)) == DATA


@pytest.mark.parametrize("name", COMPRESSORS)
def test_more_than_fits_is_not_decoded(name):
    stream = encoded(name, bytes(16 << 20))
    with pytest.raises(CorruptDataError), faults.reading("a chunk"):
        codecs.decode(CODECS[name], stream, 1 << 20)


@pytest.mark.parametrize("name", [name for name in CODECS if name != "shuffle"])
def test_damage_is_an_error(name):
    stream = encoded(name, DATA)
    for damaged in (stream[:-1], stream[: len(stream) // 2], b"", b"\xff" * 40):
        with pytest.raises(CorruptDataError), faults.reading("a chunk"):
            whole(codecs.decode(CODECS[name], damaged, len(DATA)))


def test_a_pickle_is_no_codec():
    assert not {"pickle", "json2", "msgpack2", "vlen-bytes"} & set(codecs.DECODERS)
