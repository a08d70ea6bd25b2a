"""Every format that is read from a disk is read from a web server and from S3: the same frame and voxels."""

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from servers import BUCKET, client, needs_nginx, nginx, s3, upload
from stored_volumes import FORMATS, FRAME, SHAPE, VOXELS, chunk_files, copied

from vemdiffuse_pipe.errors import (
    AccessError,
    CorruptDataError,
    MissingDataError,
    SourceError,
    TransientError,
)
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source

WHOLE = Box.of_shape(SHAPE)
LOCAL = ("tiff", "mrc", "hdf5", "precomputed-cloudvolume-gz")  # files, and chunks under other names
REMOTE = [stored for stored in FORMATS if not stored.name.startswith(LOCAL)]
KINDS = ["http", "s3"]


@pytest.fixture(scope="module")
def endpoint():
    with s3() as url:
        yield url


@pytest.fixture(params=[pytest.param("http", marks=needs_nginx), "s3"])
def serve(request, endpoint, tmp_path):
    """Puts a folder on a server; returns its address there."""
    if request.param == "s3":
        yield lambda folder: upload(folder, endpoint, f"{tmp_path.name}/{folder.name}")
        return
    (tmp_path / "www").mkdir()
    with nginx(tmp_path / "www", tmp_path / "nginx") as url:

        def copy(folder):
            copied(folder, tmp_path / "www" / folder.name)
            return f"{url}/{folder.name}"

        yield copy


@pytest.mark.parametrize("stored", REMOTE, ids=str)
def test_volume_on_a_server_is_the_volume_on_the_disk(stored, written, serve):
    url = serve(written(stored))
    source = open_source(f"{url}/{stored.inside}", **stored.options)
    assert source.spec.frame == FRAME
    np.testing.assert_array_equal(source.read(WHOLE), VOXELS)
    inner = Box((3, 5, 7), (9, 20, 30))
    np.testing.assert_array_equal(source.read(inner), VOXELS[inner.slices])


def test_absent_chunk_is_missing_and_cut_chunk_is_corrupt(written, serve, tmp_path):
    volume = copied(written(REMOTE[0]), tmp_path / "volume")
    first, second, *_ = chunk_files(volume)
    first.unlink()
    second.write_bytes(second.read_bytes()[:20])
    source = open_source(serve(volume))
    with pytest.raises(MissingDataError):
        source.read(Box((0, 0, 0), (1, 1, 1)))
    with pytest.raises(CorruptDataError):
        source.read(Box((0, 0, 16), (1, 1, 17)))


def test_nothing_there_is_said_in_a_sentence(serve, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("no volume")
    with pytest.raises(SourceError, match="holds no volume's metadata"):
        open_source(serve(tmp_path / "empty"))


def test_what_is_not_public_is_refused_with_a_word_on_credentials(endpoint):
    client(endpoint).put_object(Bucket=BUCKET, Key="secret/zarr.json", Body=b"{}", ACL="private")
    with pytest.raises(SourceError, match=r"not public.*AWS_PROFILE"):
        open_source(f"s3+{endpoint}/{BUCKET}/secret")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("404", MissingDataError),
        ("410", MissingDataError),
        ("400", AccessError),
        ("401", AccessError),
        ("403", AccessError),
        ("418", AccessError),
        ("416", CorruptDataError),
        ("501", TransientError),
        ("507", TransientError),
    ],
)
@needs_nginx
def test_an_http_code_means_what_it_says_and_nothing_is_made_of_it(code, error, written, tmp_path):
    copied(written(REMOTE[0]), tmp_path / "www" / "em")
    with nginx(tmp_path / "www", tmp_path / "nginx") as url, FaultyProxy(url) as proxy:
        source = open_source(f"{proxy.url}/em")
        proxy.share, proxy.kinds = 1.0, (code,)
        with pytest.raises(error):
            source.read(Box((0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize("port", [1])
def test_a_server_that_is_not_there_is_said_in_bounded_time(port):
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1.*cannot be read"):
        open_source(f"http://127.0.0.1:{port}/volume")
