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

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
needs_sftp = pytest.mark.skipif(
    not Path(SSHD).exists() or os.geteuid() != 0,
    reason="openssh-server is not installed, or the user is not root",
)
AZURITE = shutil.which("azurite-blob") or ""
needs_azure = pytest.mark.skipif(not AZURITE, reason="azurite is not installed: npm install -g azurite")

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
def sftp(home: Path) -> Iterator[str]:
    """The address of an SFTP server; who has `home` for a home is let in, and knows the host."""
    ssh, port = home / ".ssh", free_port()
    ssh.mkdir(mode=0o700, parents=True)
    for key in ("host", "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / key)], check=True)
    (ssh / "authorized_keys").write_text((ssh / "id_ed25519.pub").read_text())
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{port} {(ssh / 'host.pub').read_text()}")
    (ssh / "sshd.conf").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {ssh}/host\n"
        f"AuthorizedKeysFile {ssh}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with _process([SSHD, "-D", "-f", str(ssh / "sshd.conf")], f"http://127.0.0.1:{port}"):
        yield f"sftp://127.0.0.1:{port}"


@contextmanager
def azure(work: Path) -> Iterator[str]:
    """What AZURE_STORAGE_CONNECTION_STRING must be to reach an empty server of blobs on this machine.

    The account and its key are those that the emulator publishes.
    """
    port = free_port()
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    url = f"http://127.0.0.1:{port}"
    command = [AZURITE, "--blobPort", str(port), "--location", str(work), "--skipApiVersionCheck", "--silent"]
    with _process(command, url):
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
            f"BlobEndpoint={url}/devstoreaccount1;"
        )


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
