"""The command line on volumes that are on a server, typed as a user would: --endpoint-url, then s3://."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from servers import BUCKET, client, s3, upload
from small_volumes import VOXEL_SIZE, Ended, sections

from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_sink

Vemdiffuse = Callable[..., Ended]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server, credentials for it, and nothing left in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-logs")
    with s3() as url:
        yield url


def test_from_a_bucket_to_a_bucket(here: Path, endpoint: str, vemdiffuse: Vemdiffuse) -> None:
    zarr.create_array(here / "stack.zarr", data=sections(), chunks=(1, 16, 16))
    upload(here / "stack.zarr", endpoint, "stack.zarr")
    source, output = f"s3://{BUCKET}/stack.zarr/|zarr3:", f"s3://{BUCKET}/out.zarr"
    at = ("--endpoint-url", endpoint)
    ended = vemdiffuse("reconstruct", *at, source, output, *VOXEL_SIZE, "--model", "linear", "--json")
    assert ended.code == 0, ended.stderr
    assert vemdiffuse("verify", *at, output).code == 0
    stated = vemdiffuse("status", output, *at, "--json")
    assert json.loads(stated.stdout)["n_blocks_done"] > 0
    told = vemdiffuse("events", output, *at).stdout
    assert told.count("\n") == 2
    assert " run ended" in told
    assert vemdiffuse("inspect", *at, f"{output}/em").code == 0
    local = vemdiffuse("reconstruct", "stack.zarr", "out.zarr", *VOXEL_SIZE, "--model", "linear")
    assert local.code == 0
    there, here_ = open_sink(output), open_sink("out.zarr")
    box = Box.of_shape(there.spec.shape)
    np.testing.assert_array_equal(there.read("em", box), here_.read("em", box))
    for file in here.rglob("*"):
        assert not file.is_file() or b"not-for-logs" not in file.read_bytes()


def test_an_output_is_never_made_around_a_volume_or_over_old_receipts(
    here: Path, endpoint: str, vemdiffuse: Vemdiffuse
) -> None:
    zarr.create_array(here / "stack.zarr", data=sections(), chunks=(1, 16, 16))
    ours = ("--endpoint-url", endpoint, *VOXEL_SIZE, "--model", "linear")
    upload(here / "stack.zarr", endpoint, "ds/em")
    around = vemdiffuse("reconstruct", f"s3://{BUCKET}/ds/em", f"s3://{BUCKET}/ds", *ours)
    assert (around.code, "holds the source" in around.stderr) == (2, True)
    over = vemdiffuse("reconstruct", "stack.zarr", f"s3://{BUCKET}/ds", *ours)
    assert (over.code, "is not empty (it holds em/zarr.json)" in over.stderr) == (2, True)
    assert vemdiffuse("reconstruct", "stack.zarr", f"s3://{BUCKET}/o", *ours).code == 0
    keys = [k["Key"] for k in client(endpoint).list_objects_v2(Bucket=BUCKET, Prefix="o/")["Contents"]]
    for key in (key for key in keys if ".vemdiffuse" not in key):
        client(endpoint).delete_object(Bucket=BUCKET, Key=key)
    again = vemdiffuse("reconstruct", "stack.zarr", f"s3://{BUCKET}/o", *ours)
    assert (again.code, "it holds .vemdiffuse/" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "--endpoint-url", "127.0.0.1:1", "s3://b/em"), "http"),
        (("inspect", "ftp://host/em"), "s3://"),
        (("inspect", "https://me:pw@host/em"), "credentials"),
        (("reconstruct", "stack.tif", "https://host/out", *VOXEL_SIZE, "--model", "linear"), "web server"),
    ],
)
def test_what_cannot_be_reached_is_said_in_a_sentence(
    stack: Path, vemdiffuse: Vemdiffuse, arguments: tuple[str, ...], words: str
) -> None:
    ended = vemdiffuse(*arguments)
    assert ended.code == 2
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "pw@" not in ended.stderr


def test_holes_are_filled_where_asked(here: Path, vemdiffuse: Vemdiffuse) -> None:
    zarr.create_array(
        here / "stack.zarr", data=sections(), chunks=(1, 16, 16), config={"write_empty_chunks": True}
    )
    (here / "stack.zarr" / "c" / "1" / "0" / "0").unlink()
    line = ("reconstruct", "stack.zarr", "out.zarr", *VOXEL_SIZE, "--model", "linear")
    assert vemdiffuse(*line).code == 1
    assert vemdiffuse("reconstruct", "stack.zarr", "filled.zarr", *line[3:], "--missing", "fill").code == 0
    refused = vemdiffuse(*line, "--missing", "fill")
    assert (refused.code, "missing fail -> fill" in refused.stderr) == (2, True)
