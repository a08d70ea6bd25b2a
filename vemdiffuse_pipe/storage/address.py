"""Where a volume is. Parsed once, so that no driver handles a URL, and a new kind of store is added here.

    stack.zarr/em   file:///data/em                            the local disk
    s3://bucket/em   s3+http://127.0.0.1:9000/bucket/em        S3, and stores that speak its language
    gs://bucket/em   https://host/em                           Google Cloud Storage; any web server, to read
    az://container/em   abfs://container@account.dfs.core.windows.net/em      Azure, to read
    sftp://user@host/data/em   hf://datasets/owner/name/em      SFTP, Hugging Face, to read
    em.ozx   em.zarr.zip/0                                      what is in a zip archive on any of these, to
    read

and what people paste: `precomputed://gs://bucket/em`, `n5://...`, `zarr://...`, `gs://bucket/em/|zarr3:s0`.
A form that names a format says where the volume is and no more: the format is found from the metadata.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vemdiffuse_pipe.errors import ConfigError

_FORMAT_PREFIX = re.compile(r"(zarr[23]?|n5|precomputed|neuroglancer-precomputed)://", re.IGNORECASE)
_FORMAT_SUFFIX = re.compile(r"/?\|(zarr[23]?|ome-zarr|n5|neuroglancer-precomputed|auto):([^|]*)$")
_KNOWN = (
    "give a local path, or an address that begins with file://, s3://, gs://, http://, https://, az://, "
    "abfs://, sftp:// or hf://"
)
_ACCOUNT = r"[A-Za-z0-9$-]+@[a-z0-9]+\.(dfs|blob)\.core\.windows\.net"  # container and host of Azure
_USER = r"[A-Za-z0-9._-]+@[^/@:]+(:\d+)?"
_NAMED_BEFORE_AT = {"abfs": _ACCOUNT, "abfss": _ACCOUNT, "sftp": _USER}  # what may be, and is no secret


@dataclass(frozen=True, slots=True)
class Address:
    """A folder or an object of a store.

    `store`: "" for the local disk, else "s3://bucket", "s3+https://host/bucket", "gs://bucket",
    "https://host", "az://container", "sftp://user@host" or "hf:/"; "zip://ARCHIVE" for what is in a zip
    archive. `key`: the path in it; on the disk it is absolute.
    """

    store: str
    key: str

    def __truediv__(self, key: str) -> Address:
        return replace(self, key=f"{self.key}/{key}" if self.key else key)

    def __str__(self) -> str:
        if not self.store:
            return self.key
        store = self.store.removeprefix("zip://")
        return f"{store}/{self.key}" if self.key or store == self.store else store

    def inside(self, key: str) -> Address:
        """What has that key in the zip archive that is at this address."""
        return Address(f"zip://{self}", key)

    @property
    def is_local(self) -> bool:
        """True on the local disk."""
        return not self.store

    @property
    def path(self) -> Path:
        """Where it is on the local disk."""
        assert self.is_local, f"{self} is not on the local disk"
        return Path(self.key)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> Address:
        """The folder that holds it; the top of a store holds itself."""
        above = self.key.rpartition("/")[0]
        return replace(self, key=above or ("/" if self.is_local else ""))


def parse_address(url: str | os.PathLike[str]) -> Address:
    """The address that `url` means, in any form that people paste. Raises ConfigError for anything else.

    s3:// goes to AWS, or to the store that the environment's AWS_ENDPOINT_URL names.
    """
    text = os.fspath(url)
    if not text or not text.isprintable():
        raise ConfigError(f"{text!r} is not an address; {_KNOWN}")
    text = _FORMAT_PREFIX.sub("", text, count=1)
    _refuse_secrets(text)
    text, inner = _without_format_suffix(text)
    address = _parsed(text)
    return address / _checked_key(inner, text) if inner else address


def with_endpoint(url: str, endpoint_url: str | None) -> str:
    """`url`, its s3:// address at the S3-compatible store `endpoint_url`. Raises ConfigError."""
    head, scheme, rest = url.partition("s3://")
    if endpoint_url is None or not scheme:
        return url
    check_endpoint(endpoint_url)
    return f"{head}s3+{endpoint_url.rstrip('/')}/{rest}"


def check_endpoint(url: str) -> None:
    """Raises ConfigError, which repeats none of it, for what is no endpoint of a store or holds a secret."""
    wrong = "" if url.startswith(("http://", "https://")) else "it does not begin with http:// or https://"
    if "@" in url:
        wrong = "it holds a user name or a password, which belong where the store's own tools look for them"
    elif re.search(r"[?#\s]", url) or not url.isprintable():
        wrong = "it has a ?, a # or a space in it"
    if wrong:
        raise ConfigError(
            f"the endpoint of a store, from --endpoint-url or AWS_ENDPOINT_URL, cannot be used: {wrong}; "
            "an address like https://HOST:9000 is needed"
        )


def stated_endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """The endpoint that AWS_ENDPOINT_URL names for s3:// addresses, '' for AWS. Raises ConfigError."""
    if endpoint := environ.get("AWS_ENDPOINT_URL", ""):
        check_endpoint(endpoint)
    return endpoint


def _refuse_secrets(text: str) -> None:
    """Raises ConfigError, which repeats none of it, for what may be a password or a signature."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return
    host = rest.partition("/")[0]
    if "@" in host and not re.fullmatch(_NAMED_BEFORE_AT.get(scheme, "(?!)"), host):
        raise ConfigError(
            f"an address that begins with {scheme}:// holds a user name or a password; leave it out, and put "
            "credentials where the store's own tools look for them"
        )
    if found := re.search(r"[?#]", rest):
        plain = f"{scheme}://{rest[: found.start()]}"
        raise ConfigError(f"{plain}: an address with a ? or a # is not read; leave that part out")


def _without_format_suffix(text: str) -> tuple[str, str]:
    """`gs://bucket/em/|zarr3:s0` is `gs://bucket/em` and `s0`."""
    if "|" not in text or "://" not in text:
        return text, ""
    found = _FORMAT_SUFFIX.search(text)
    if found is None or "|" in text[: found.start()]:
        raise ConfigError(
            f"{text}: only |zarr:, |zarr2:, |zarr3:, |n5: and |neuroglancer-precomputed: are read"
        )
    return text[: found.start()], found[2].strip("/")


def _parsed(text: str) -> Address:
    if "://" not in text:
        return Address("", _absolute(text))
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"{text} is not an address ({error}); {_KNOWN}") from None
    match parts.scheme:
        case "file" if parts.netloc in ("", "localhost"):
            return Address("", _absolute(unquote(parts.path)))
        case "az" | "abfs" | "abfss" | "sftp" if parts.netloc:
            return Address(f"{parts.scheme}://{parts.netloc}", _checked_key(unquote(parts.path), text))
        case "hf":
            return Address("hf:/", _checked_key(text.partition("://")[2], text))
        case "http" | "https" if parts.netloc:
            return Address(f"{parts.scheme}://{parts.netloc}", _checked_key(unquote(parts.path), text))
        case "s3+http" | "s3+https" if parts.netloc:
            return _in_bucket(f"{parts.scheme}://{parts.netloc}", parts.path, text)
        case "s3" | "gs":
            bucket_and_key = text.partition("://")[2]
            if parts.scheme == "s3" and (endpoint := stated_endpoint()):
                return _parsed(with_endpoint(text, endpoint))
            return _in_bucket(f"{parts.scheme}:/", f"/{bucket_and_key}", text)
    raise ConfigError(f"{text} is not an address that can be read; {_KNOWN}")


def _in_bucket(store: str, path: str, text: str) -> Address:
    bucket, _, key = path.removeprefix("/").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,220}", bucket):
        raise ConfigError(f"{text} names no bucket; an address like s3://BUCKET/PATH is needed")
    return Address(f"{store}/{bucket}", _checked_key(key, text))


def _checked_key(key: str, text: str) -> str:
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ConfigError(f"{text} has .. in its path; give the path without it")
    return "/".join(parts)


def _absolute(path: str) -> str:
    """The path from the root, without `..`: tensorstore takes none with it."""
    absolute = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 (Path's own raises for ~nobody)
    return os.path.realpath(absolute) if ".." in absolute.parts else str(absolute)
