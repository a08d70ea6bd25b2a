"""Metadata is hostile until it is checked: whatever it says, a sentence of ours or a volume comes out."""

import copy
import json
import subprocess
import sys

import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_volumes import FORMATS, copied, write_json

from vemdiffuse_pipe.errors import SourceError, VemdiffuseError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

ONE_VOXEL = Box((0, 0, 0), (1, 1, 1))
BY_NAME = {stored.name: stored for stored in FORMATS}
ABSENT = object()

# format, the file that is changed
DOCUMENTS = [
    ("ome-zarr-0.4", ".zattrs"),
    ("ome-zarr-0.4", "s0/.zarray"),
    ("ome-zarr-0.4-tczyx", ".zattrs"),
    ("ome-zarr-0.5-sharded", "zarr.json"),
    ("ome-zarr-0.5-sharded", "s0/zarr.json"),
    ("zarr-v2-fortran", ".zarray"),
    ("n5-cosem", "attributes.json"),
    ("n5-cosem", "s0/attributes.json"),
    ("n5-viewer", "attributes.json"),
    ("n5-bigdataviewer", "setup0/timepoint0/s0/attributes.json"),
    ("precomputed-raw", "info"),
    ("precomputed-sharded", "info"),
    ("precomputed-cloudvolume-gz", "info"),
]

HOSTILE = [
    ABSENT, None, True, False, 0, -1, 1, 2, 1.5, 2**31, 2**40 + 1, 2**62, 2**63, 2**64, 10**400, 1e308,
    1e-320, float("nan"), float("inf"), "", "0", "..", "../../etc", "/etc/passwd", "s0/../../x",
    "file:///etc", "a|b:", "\ud800", "a\0b", "x" * 5000, [], [0], [1, 2], [[]], [1, 1, 1, 1], [-1, 4, 4],
    [2**62] * 3, [0.5] * 3, [None] * 3, [1e-300] * 3, ["a"] * 3, {}, {"name": "x"}, ["z"] * 9,
    {"type": "scale", "scale": [0, 0, 0]},
]  # fmt: skip


def places(document, path=()):
    """Every place of a JSON document."""
    yield path
    if isinstance(document, dict | list):
        for key, child in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(child, (*path, key))


def changed(document, path, value):
    if not path:
        return {} if value is ABSENT else value
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    if value is ABSENT:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return document


def open_and_read(path, **options):
    """A volume comes out, or a VemdiffuseError in one line."""
    said = ""
    try:
        open_source(path, **options).read(ONE_VOXEL)
    except VemdiffuseError as error:
        said = str(error)
    assert not said or 10 < len(said) < 2000
    assert "\n" not in said


@pytest.mark.parametrize(("name", "key"), DOCUMENTS)
def test_any_change_gives_a_sentence_or_a_volume(name, key, written, tmp_path):
    stored = BY_NAME[name]
    path = copied(written(stored), tmp_path / "volume")
    document = json.loads((path / key).read_text())
    everywhere = st.sampled_from(list(places(document)))

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(everywhere, st.sampled_from(HOSTILE)), min_size=1, max_size=2))
    def check(changes):
        hostile = document
        for place, value in changes:
            if place in set(places(hostile)) and isinstance(hostile, dict):
                hostile = changed(hostile, place, value)
        (path / key).write_text(json.dumps(hostile))
        open_and_read(path / stored.inside, **stored.options)
        open_and_read(path / stored.inside)

    check()


@pytest.mark.parametrize(("name", "key"), DOCUMENTS)
@pytest.mark.parametrize(
    ("torn", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[]", "needed an object"),
        (b'{"a": ' + b"[" * 100_000, "nested"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
    ids=["empty", "cut", "not-text", "a-list", "deep", "long-number"],
)
def test_torn_document_is_named(name, key, torn, word, written, tmp_path):
    stored = BY_NAME[name]
    path = copied(written(stored), tmp_path / "volume")
    (path / key).write_bytes(torn)
    with pytest.raises(SourceError, match=word) as caught:
        open_source(path / stored.inside, **stored.options)
    assert key.rpartition("/")[2] in str(caught.value)


HUGE = [1 << 62, 7, 7]


@pytest.mark.parametrize(
    ("name", "key", "place", "value", "word"),
    [
        ("zarr-v2-fortran", ".zarray", ("shape",), HUGE, "2\\^40"),
        ("zarr-v2-fortran", ".zarray", ("shape",), [2**40, 2**20, 7], "2\\^62"),
        ("zarr-v2-fortran", ".zarray", ("shape",), [0, 7, 7], "at least 1"),
        ("zarr-v2-fortran", ".zarray", ("chunks",), [-5, 7, 7], "at least 1"),
        ("zarr-v2-fortran", ".zarray", ("chunks",), [0, 7, 7], "at least 1"),
        ("zarr-v2-fortran", ".zarray", ("chunks",), [2**16, 2**16, 2], "512 MB"),
        ("n5-plain", "attributes.json", ("blockSize",), [2**16, 2**16, 2], "512 MB"),
        ("zarr-v2-fortran", ".zarray", ("chunks",), [5, 7], "3 integers"),
        ("zarr-v2-fortran", ".zarray", ("chunks",), [5.5, 7, 7], "integer"),
        (
            "ome-zarr-0.5-sharded",
            "s0/zarr.json",
            ("chunk_grid", "configuration", "chunk_shape"),
            HUGE,
            "2\\^40",
        ),
        (
            "ome-zarr-0.5-sharded",
            "s0/zarr.json",
            ("codecs", 0, "configuration", "chunk_shape"),
            [0] * 3,
            "least 1",
        ),
        ("ome-zarr-0.5-sharded", "s0/zarr.json", ("node_type",), "group", "an array is needed"),
        ("ome-zarr-0.4", ".zattrs", ("multiscales", 0, "datasets", 0, "path"), "../s0", "relative path"),
        ("ome-zarr-0.4", ".zattrs", ("multiscales", 0, "datasets", 0, "path"), "/etc", "relative path"),
        ("ome-zarr-0.4", ".zattrs", ("multiscales", 0, "datasets", 0, "path"), "s3://b/s0", "relative path"),
        ("ome-zarr-0.4", ".zattrs", ("multiscales", 0, "datasets", 0, "path"), "gone", "no zarr array"),
        ("ome-zarr-0.4", ".zattrs", ("multiscales", 0, "datasets"), [], "1 to 64"),
        ("ome-zarr-0.4", ".zattrs", ("multiscales", 0, "axes", 0, "name"), "w", "axes z, y and x"),
        ("n5-cosem", "s0/attributes.json", ("dimensions",), HUGE, "2\\^40"),
        ("n5-cosem", "s0/attributes.json", ("blockSize",), [0, 7, 7], "at least 1"),
        ("n5-cosem", "attributes.json", ("multiscales", 0, "datasets", 0, "path"), "../x", "relative path"),
        ("precomputed-raw", "info", ("scales", 0, "size"), HUGE, "2\\^40"),
        ("precomputed-raw", "info", ("scales", 0, "key"), "../../x", "relative path"),
        ("precomputed-raw", "info", ("scales", 0, "chunk_sizes", 0), [2**16, 2**16, 2], "512 MB"),
        ("precomputed-raw", "info", ("scales", 0, "encoding"), "jxl", "raw"),
        ("precomputed-raw", "info", ("num_channels",), 3, "channel"),
    ],
)
def test_hostile_number_or_name_is_refused(name, key, place, value, word, written, tmp_path):
    stored = BY_NAME[name]
    path = copied(written(stored), tmp_path / "volume")
    write_json(path / key, changed(json.loads((path / key).read_text()), place, value))
    with pytest.raises(SourceError, match=word):
        open_source(path, **stored.options)


def test_chunk_is_measured_in_bytes(tmp_path):
    zarr.create_array(tmp_path, shape=(7, 7, 7), chunks=(7, 7, 7), dtype="uint16", zarr_format=2)
    document = json.loads((tmp_path / ".zarray").read_text())
    write_json(tmp_path / ".zarray", document | {"chunks": [1 << 11, 1 << 11, 1 << 10]})
    with pytest.raises(SourceError, match="512 MB"):
        open_source(tmp_path, voxel_size_nm=(40, 4, 4), window=(0, 9))


@pytest.mark.parametrize("scale", [0, -4, float("nan"), float("inf"), "4", None, True, 1e300, 1e-300])
@pytest.mark.parametrize(
    ("name", "key", "place"),
    [
        (
            "ome-zarr-0.4",
            ".zattrs",
            ("multiscales", 0, "datasets", 0, "coordinateTransformations", 0, "scale", 1),
        ),
        ("n5-cosem", "attributes.json", ("multiscales", 0, "datasets", 0, "transform", "scale", 1)),
        ("n5-viewer", "attributes.json", ("pixelResolution", "dimensions", 1)),
        ("precomputed-raw", "info", ("scales", 0, "resolution", 1)),
    ],
    ids=["ome-zarr", "n5-cosem", "n5-viewer", "precomputed"],
)
def test_impossible_scale_is_refused(name, key, place, scale, written, tmp_path):
    path = copied(written(BY_NAME[name]), tmp_path / "volume")
    write_json(path / key, changed(json.loads((path / key).read_text()), place, scale))
    with pytest.raises(SourceError, match=r"larger than 0|finite number|1e-6"):
        open_source(path)


MEASURE = """
import pathlib, sys
from vemdiffuse_pipe.errors import SourceError
from vemdiffuse_pipe.storage import open_source
try:
    open_source(sys.argv[1])
except SourceError as error:
    print(error)
status = pathlib.Path("/proc/self/status").read_text()  # getrusage counts the process that began this one
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""


def peak_of_opening(path):
    """What was said, and the most memory that the process had, in bytes."""
    command = [sys.executable, "-W", "error", "-c", MEASURE, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sentence, peak_kb = said.splitlines()
    return sentence, 1024 * int(peak_kb)


KEYS = ["zarr.json", ".zattrs", ".zarray", "attributes.json", "info"]


@pytest.mark.parametrize("key", KEYS)
def test_endless_document_is_not_read_to_its_end(key, tmp_path):
    with (tmp_path / key).open("wb") as file:
        file.truncate(3 << 30)
    sentence, peak_bytes = peak_of_opening(tmp_path)
    assert "larger than 16 MB" in sentence
    assert peak_bytes < 300 << 20


@pytest.mark.parametrize("key", KEYS)
def test_many_small_objects_cost_less_than_a_gigabyte(key, tmp_path):
    (tmp_path / key).write_bytes(b'{"a": [' + b'{"":{}},' * (15 << 17) + b"0]}")
    _, peak_bytes = peak_of_opening(tmp_path)
    assert peak_bytes < 1 << 30
