"""Real servers on loopback: moto's S3, and nginx. Each a process of its own, ended when the test ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "volumes"

PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"
needs_nginx = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="nginx is not installed")

_NGINX = """\
daemon off; worker_processes 2; pid {work}/pid; error_log {work}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log {work}/access.log; client_body_temp_path {work}/b; proxy_temp_path {work}/p;
  fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s; types {{ }}
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    {rules}
  }}
}}
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, work: Path, rules: str = "") -> Iterator[str]:
    """The address of a web server that serves `folder`; `rules` are lines of its configuration."""
    work.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    port = free_port()
    file = work / "nginx.conf"
    as_user = "user root;\n" if os.geteuid() == 0 else ""  # the folders of a test are its owner's alone
    file.write_text(as_user + _NGINX.format(work=work, folder=folder, port=port, rules=rules))
    url = f"http://127.0.0.1:{port}"
    with _process([PROGRAM, "-c", str(file), "-e", str(work / "error.log")], url):
        yield url


@contextmanager
def s3() -> Iterator[str]:
    """The endpoint of an S3 server with one public bucket, BUCKET, which is empty."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-c",
        "from moto.server import main; main()",
        "-H",
        "127.0.0.1",
        "-p",
        url[17:],
    ]
    with _process(command, url):
        client(url).create_bucket(Bucket=BUCKET, ACL="public-read")
        yield url


def client(endpoint: str):  # type: ignore[no-untyped-def]
    """boto3's own client of the server."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def upload(folder: Path, endpoint: str, prefix: str, bucket: str = BUCKET) -> str:
    """Put every file of a folder into a bucket, readable by all; the address of the folder there."""
    s3_client = client(endpoint)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(folder)}".removeprefix("/")
            s3_client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes(), ACL="public-read")
    return f"s3+{endpoint}/{bucket}/{prefix}"


@contextmanager
def _process(command: list[str], url: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_until_it_answers(process, url)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        try:
            with socket.create_connection((host, int(port)), 1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nothing answers at {url}")
