"""Every form of address that people paste means one place; what is no address is refused in a sentence."""

import pytest

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.storage.address import parse_address, with_endpoint
from vemdiffuse_pipe.storage.stores import kvstore_of

SAME = "gs://bucket/em/aligned"


@pytest.mark.parametrize(
    "pasted",
    [
        SAME,
        SAME + "/",
        "precomputed://" + SAME,
        "neuroglancer-precomputed://" + SAME,
        SAME + "/|neuroglancer-precomputed:",
        SAME + "|zarr2:",
        "gs://bucket/em/|zarr3:aligned",
        "gs://bucket/em/|n5:/aligned/",
        "n5://gs://bucket//em/aligned",
        "zarr://" + SAME,
        "zarr3://" + SAME,
    ],
)
def test_pasted_forms_mean_the_same_place(pasted):
    assert str(parse_address(pasted)) == SAME


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a/b c",
        "s3+http://127.0.0.1:9000/bucket/a",
        "s3+https://minio.lab.org/bucket",
        "https://host:8080/a/b",
        "http://host",
        "gs://bucket/a",
        "/data/em.zarr",
    ],
)
def test_an_address_that_is_printed_can_be_given_again(text, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    address = parse_address(text)
    assert parse_address(str(address)) == address
    assert parse_address(str(address / "s0")).parent == address
    assert (address / "s0").name == "s0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://me:secret@host/em", "credentials"),
        ("https://host/em?X-Amz-Signature=abc", r"leave that part out"),
        ("s3://bucket/../other", r"\.\."),
        ("https://host/a/../../etc", r"\.\."),
        ("https://host/a/%2e%2e/etc", r"\.\."),
        ("s3:///key", "no bucket"),
        ("gs://", "no bucket"),
        ("ftp://host/em", "s3://"),
        ("https://me:secret@host:99999/x", "credentials"),
        ("https://me:secret@host/x|zarr9:", "credentials"),
        ("https://host/x?X-Amz-Signature=abc|zarr9:", "leave that part out"),
        ("file:///data/em.zarr#other", "leave that part out"),
        ("s3+http://127.0.0.1:9000/b/run#1", "leave that part out"),
        ("s3://bucket/run#1", "leave that part out"),
        ("gs://b/x.zip|zip:em/|zarr3:", "only"),
        ("http://[::1/em", "not an address"),
    ],
)
def test_what_is_no_address_is_refused(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_address(text)
    assert "secret" not in str(caught.value)
    assert "Signature" not in str(caught.value)


def test_an_endpoint_is_part_of_the_address_from_then_on(monkeypatch):
    assert with_endpoint("s3://b/em", "http://127.0.0.1:9000/") == "s3+http://127.0.0.1:9000/b/em"
    assert with_endpoint("zarr://s3://b/em", "https://x") == "zarr://s3+https://x/b/em"
    assert with_endpoint("/data/em", "https://x") == "/data/em"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert str(parse_address("s3://b/em")) == "s3+http://127.0.0.1:9000/b/em"
    with pytest.raises(ConfigError, match="http"):
        with_endpoint("s3://b/em", "127.0.0.1:9000")


@pytest.mark.parametrize(
    "endpoint",
    ["http://me:s3cret@minio:9000", "http://s3cret@minio", "http://me:s3/cret@minio", "http://h?X=s3cret"],
)
def test_an_endpoint_with_a_password_is_refused_without_repeating_it(monkeypatch, endpoint):
    with pytest.raises(ConfigError, match="the endpoint of a store") as stated:
        with_endpoint("s3://b/em", endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="the endpoint of a store") as found:
        parse_address("s3://b/em")
    assert not any(word in f"{stated.value}{found.value}" for word in ("s3cret", "cret@", "me:"))


def test_reading_is_anonymous_unless_credentials_are_found(monkeypatch, tmp_path):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    address = parse_address("s3+http://127.0.0.1:9000/bucket/em")
    assert kvstore_of(address)["aws_credentials"] == {"type": "anonymous"}
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[default]\nregion = x\n[profile lab]\nrole_arn = y\n")
    assert kvstore_of(address)["aws_credentials"] == {"type": "anonymous"}  # nobody asked for that profile
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="it has those of lab"):
        kvstore_of(address)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert kvstore_of(address)["aws_credentials"] == {"type": "profile"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    assert kvstore_of(address)["aws_credentials"] == {"type": "environment"}
