"""Every store behind one door: tensorstore's key-value stores, for voxels and for small objects alike.

One library means one set of credentials, one way of trying again and one kind of failure, whether a chunk is
read or a receipt is written. Reading is anonymous unless credentials lie where the store's own tools look for
them. A request that fails in passing is repeated here, a few times, with growing, random waits; what still
fails is raised as transient, for whoever asked to have retry_policy with.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.storage import file_systems
from vemdiffuse_pipe.storage.address import Address, parse_address

if TYPE_CHECKING:
    import tensorstore

_RETRIES = {"max_retries": 5, "initial_delay": "200ms", "max_delay": "5s"}
_HEAD = 16  # bytes by which a page is recognised
_STALLED_S = 30  # seconds without a byte after which a request has failed
_KEYS = ("aws_access_key_id", "credential_process", "role_arn", "sso_")
_ROLES = (
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)

# Read by tensorstore when it is first used: without them a server that never answers is waited for for ever.
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", str(_STALLED_S))
os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")


def kvstore_of(address: Address) -> dict[str, object]:
    """The folder at `address` as tensorstore names it."""
    return {**_store(address.store), "path": f"{address.key}/" if address.key else ""}


def is_for_tensorstore(address: Address) -> bool:
    """False where tensorstore does not reach the store, or would decode the page of an absent chunk."""
    store = address.store.removeprefix("zip://")
    if file_systems.has(address) or file_systems.has(Address(store, "")):
        return False
    return not store.startswith("http") or address.store != store or page_of_absent(store) is None


def retries_context() -> dict[str, object]:
    """How requests are repeated, for a tensorstore context."""
    return {f"{store}_request_retries": _RETRIES for store in ("s3", "gcs", "http")}


@cache
def opened(store: str) -> tensorstore.KvStore:
    """The whole of a remote store, open; kept for the life of the process."""
    import tensorstore as ts

    return ts.KvStore.open(_store(store), context=ts.Context(retries_context())).result()


def is_page_of_absent(address: Address, data: bytes) -> bool:
    """True where `data` is what the server of `address` answers of what it does not have.

    Some web servers answer everything, with the page of an application. What they answer of a name that
    nobody has chosen is asked for once, and an object that begins as that does is taken to be absent.
    """
    page = page_of_absent(address.store) if address.store.startswith("http") else None
    return page is not None and data[:_HEAD] == page[:_HEAD]


@cache
def page_of_absent(store: str) -> bytes | None:
    """What a web server answers of an object that is not there; None where it says that it is not."""
    try:
        found = opened(store).read(f"{secrets.token_hex(8)}-is-not-here").result()
    except (ValueError, OSError):  # it says "forbidden", or nothing: whoever asks for an object hears of it
        return None
    return bytes(found.value) if found.state == "value" else None


class Traffic(NamedTuple):
    """What went over the stores since the process began."""

    n_requests_failed: int
    bytes_fetched: int


def traffic() -> Traffic:
    """By tensorstore's own counters. A request failed where no answer came, or one that says "later"."""
    import tensorstore as ts

    counted = {
        metric["name"].removeprefix("/tensorstore/"): metric["values"]
        for prefix in ("/tensorstore/http/re", "/tensorstore/kvstore/")
        for metric in ts.experimental_collect_matching_metrics(prefix)
    }
    answered = sum(
        code["value"]
        for code in counted.get("http/response_codes", ())
        if code["code"] != "429" and not code["code"].startswith("5")
    )
    begun = sum(value["value"] for value in counted.get("http/request_completed", ()))
    fetched = sum(
        value["value"] for name, values in counted.items() if name.endswith("/bytes_read") for value in values
    )
    return Traffic(begun - answered, fetched)


def where_credentials_go(address: Address) -> str:
    """What to do to be let in."""
    scheme = address.store.partition("://")[0]
    if scheme == "gs":
        return "credentials are taken from GOOGLE_APPLICATION_CREDENTIALS, or from gcloud's own login"
    if scheme.startswith("s3"):
        found = "none were found" if aws_credentials() == "anonymous" else "some were found"
        return f"credentials are taken from AWS_PROFILE, AWS_ACCESS_KEY_ID or ~/.aws/credentials: {found}"
    return "a web server is read without credentials"


def aws_credentials() -> str:
    """Where AWS's own tools would find credentials, as tensorstore names it; "anonymous" where nowhere.

    Raises ConfigError where AWS_PROFILE names none.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "environment"
    profile, known = os.environ.get("AWS_PROFILE"), _profiles()
    if profile and profile not in known:
        others = ", ".join(sorted(known)) or "nobody"
        raise ConfigError(
            f"AWS_PROFILE is {profile}, of which ~/.aws has no credentials; it has those of {others}"
        )
    if profile or "default" in known:
        return "profile"
    return "default" if any(os.environ.get(key) for key in _ROLES) else "anonymous"


def _profiles() -> set[str]:
    """Names of the profiles in AWS's own files that say how to be let in, not only where."""
    found: set[str] = set()
    for key, place in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        file = Path(os.environ.get(key, f"~/.aws/{place}")).expanduser()
        parser = ConfigParser(interpolation=None, strict=False)
        with suppress(OSError, ConfigParserError, UnicodeDecodeError):
            parser.read_string(file.read_text())
        for section in parser.sections():
            if any(key.startswith(_KEYS) for key in parser[section]):
                found.add(section.removeprefix("profile ").strip())
    return found


def _store(store: str) -> Mapping[str, object]:
    scheme, _, rest = store.partition("://")
    if not store:
        return {"driver": "file"}
    if scheme == "zip":
        archive = parse_address(rest)
        return {"driver": "zip", "base": {**_store(archive.store), "path": archive.key}}
    if scheme == "gs":
        return {"driver": "gcs", "bucket": rest}
    if not scheme.startswith("s3"):
        return {"driver": "http", "base_url": store}
    spec: dict[str, object] = {"driver": "s3", "aws_credentials": {"type": aws_credentials()}}
    if scheme == "s3":
        return {**spec, "bucket": rest}
    parts = urlsplit(store)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = f"{parts.scheme.removeprefix('s3+')}://{parts.netloc}"
    return {**spec, "bucket": parts.path.strip("/"), "endpoint": endpoint, "aws_region": region}
