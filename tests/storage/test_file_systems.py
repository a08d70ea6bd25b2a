"""Stores that tensorstore does not reach: the same voxels, the same errors, no word of credentials."""

import numpy as np
import pytest
from servers import azure, needs_azure, needs_sftp, sftp
from stored_volumes import FORMATS, FRAME, SHAPE, VOXELS, chunk_files, copied

from vemdiffuse_pipe.errors import (
    ConfigError,
    CorruptDataError,
    DataError,
    MissingDataError,
    OutputError,
    SourceError,
    VemdiffuseError,
)
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import create_sink, open_source, parse_address

WHOLE = Box.of_shape(SHAPE)
READ = [
    "ome-zarr-0.4", "ome-zarr-0.5", "ome-zarr-0.5-sharded", "zarr-v2-fortran", "n5-cosem", "n5-plain",
    "n5-channels", "precomputed-raw", "precomputed-png", "precomputed-cloudvolume-gz",
]  # fmt: skip
STORED = [stored for stored in FORMATS if stored.name in READ]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def sftp_url(home):
    with pytest.MonkeyPatch.context() as patch, sftp(home) as url:
        patch.setenv("HOME", str(home))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        yield url


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    from azure.storage.blob import ContainerClient

    with azure(tmp_path_factory.mktemp("azure")) as connection, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        client = ContainerClient.from_connection_string(connection, "volumes")
        client.create_container()
        yield client


@pytest.fixture(params=[pytest.param("sftp", marks=needs_sftp), pytest.param("azure", marks=needs_azure)])
def serve(request):
    """Puts a folder on a server; returns its address there."""
    if request.param == "sftp":
        url = request.getfixturevalue("sftp_url")
        yield lambda folder: f"{url}{folder}"
        return
    client = request.getfixturevalue("container")

    def upload(folder):
        for file in folder.rglob("*"):
            if file.is_file():
                client.upload_blob(
                    f"{folder.name}/{file.relative_to(folder)}", file.read_bytes(), overwrite=True
                )
        return f"az://volumes/{folder.name}"

    yield upload


def test_volume_on_a_server_is_the_volume_on_the_disk(serve, written):
    for stored in STORED:
        source = open_source(f"{serve(written(stored))}/{stored.inside}", **stored.options)
        assert source.spec.frame == FRAME, stored
        np.testing.assert_array_equal(source.read(WHOLE), VOXELS, str(stored))
        inner = Box((3, 5, 7), (9, 20, 30))
        np.testing.assert_array_equal(source.read(inner), VOXELS[inner.slices])


@pytest.mark.parametrize("name", ["ome-zarr-0.4", "ome-zarr-0.5-sharded", "n5-cosem", "precomputed-raw"])
def test_absent_chunk_is_missing_and_cut_chunk_is_corrupt(serve, name, written, tmp_path):
    stored = next(stored for stored in FORMATS if stored.name == name)
    volume = copied(written(stored), tmp_path / f"damaged-{name}")
    first, *others = chunk_files(volume)
    first.unlink()
    for chunk in others:
        chunk.write_bytes(chunk.read_bytes()[:-7])
    source = open_source(serve(volume), **stored.options)
    with pytest.raises(MissingDataError):
        source.read(Box((0, 0, 0), (1, 1, 1)))
    with pytest.raises(CorruptDataError):
        source.read(Box((10, 22, 36), (11, 23, 37)))
    filled = open_source(serve(volume), **stored.options, missing="fill").read(Box((0, 0, 0), (1, 1, 1)))
    assert filled.item() == 0


def test_nothing_there_is_said_in_a_sentence(serve, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("no volume")
    with pytest.raises(SourceError, match="holds no volume's metadata"):
        open_source(serve(tmp_path / "empty"))


def test_nothing_is_written_there(serve, tmp_path):
    with pytest.raises(OutputError, match="only read"):
        create_sink(
            f"{serve(tmp_path)}/out",
            FRAME,
            chunk_shape=(4, 4, 4),
            shard_shape=(4, 4, 4),
            attributes={},
            provenance=np.zeros(SHAPE[0], np.uint8),
        )


@needs_sftp
def test_a_host_that_nobody_knows_is_refused(tmp_path, monkeypatch):
    with sftp(tmp_path) as url:
        (tmp_path / ".ssh" / "known_hosts").write_text("")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(VemdiffuseError, match="HostKeyNotVerifiable"):
            open_source(f"{url}/tmp")


@needs_azure
def test_a_refusal_repeats_no_credentials(container, monkeypatch):
    said = []
    for wrong in ("AccountKey=c2VjcmV0", "SharedAccessSignature=sig%3Dc2VjcmV0"):
        endpoint = container.url.removesuffix("/volumes")
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", f"AccountName=a;{wrong};BlobEndpoint={endpoint}"
        )
        with pytest.raises((DataError, SourceError, VemdiffuseError)) as caught:
            open_source(f"az://volumes{len(said)}/em")
        said.append(str(caught.value))
    assert not any("c2VjcmV0" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("url", "store", "key"),
    [
        ("az://volumes/a//b/./c/", "az://volumes", "a/b/c"),
        (
            "abfs://volumes@account.dfs.core.windows.net/em",
            "abfs://volumes@account.dfs.core.windows.net",
            "em",
        ),
        ("sftp://me@host:2222/data/em", "sftp://me@host:2222", "data/em"),
        ("hf://datasets/owner/name/em.zarr", "hf:/", "datasets/owner/name/em.zarr"),
        ("zarr://sftp://host/em", "sftp://host", "em"),
    ],
)
def test_addresses_are_read_and_printed_alike(url, store, key):
    address = parse_address(url)
    assert (address.store, address.key) == (store, key)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "url",
    ["sftp://me:word@host/em", "az://key@volumes/em", "abfs://volumes@elsewhere.com/em", "az://v/e?sig=x"],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        parse_address(url)
    assert "word" not in str(caught.value).replace("password", "")
    assert "sig" not in str(caught.value)


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sshfs", None)
    with pytest.raises(ConfigError, match=r"pip install 'vemdiffuse_pipe\[sftp\]'"):
        open_source("sftp://nowhere.invalid/em")
