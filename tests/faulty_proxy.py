"""A proxy on loopback that forwards to a real server, and spoils a share of the requests as it is told to.

    with FaultyProxy(endpoint, share=0.05) as proxy:
        open_source(f"s3+{proxy.url}/bucket/em")

Faults: an HTTP code such as `503`, `reset` (the connection is reset), `delay` (answered 2 s later),
`truncated` (half of the body, then the connection ends), `short` (half of the body, and a Content-Length that
says so).
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

ALL_FAULTS = ("503", "429", "reset", "delay", "truncated")
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")
_TO_ABORT = struct.pack("ii", 1, 0)


class FaultyProxy:
    """`share` of the requests fail, each of one of `kinds`, `most` in all; `latency_s` is added to each.

    `methods`: those that may fail; all where none is named.
    """

    def __init__(
        self,
        target: str,
        share: float = 0.0,
        kinds: Sequence[str] = ALL_FAULTS,
        latency_s: float = 0.0,
        seed: int = 0,
        most: float = float("inf"),
        methods: Sequence[str] = (),
    ) -> None:
        self.most, self.methods = most, tuple(methods)
        self.share, self.kinds, self.latency_s = share, tuple(kinds), latency_s
        self.n_requests = 0
        self.faults: Counter[str] = Counter()
        self.target = urlsplit(target)
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def next_fault(self, method: str) -> str | None:
        """What becomes of the next request."""
        with self._lock:
            self.n_requests += 1
            if self.methods and method not in self.methods:
                return None
            if self._chance.random() >= self.share or self.faults.total() >= self.most:
                return None
            fault = self._chance.choice(self.kinds)
            self.faults[fault] += 1
            return fault

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    proxy: FaultyProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_any(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = proxy.next_fault(self.command)
        if proxy.latency_s:
            time.sleep(proxy.latency_s)
        if fault == "delay":
            time.sleep(2)
        if fault == "reset":
            self._abort()
        elif fault is not None and fault.isdigit():
            self._answer(int(fault), {}, b"spoiled by the proxy")
        else:
            status, headers, content = self._forwarded(body)
            if fault == "truncated":
                self._answer(status, headers, content[: len(content) // 2], stated=len(content))
                self._abort()
            else:
                self._answer(status, headers, content[: len(content) // 2] if fault == "short" else content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def _forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        target = self.server.proxy.target
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP_BY_HOP}
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.getheader("Content-Length") or "0"
            return answer.status, kept, content
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, stated: int | None = None
    ) -> None:
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(content) if stated is None else stated))
        self.end_headers()
        self.wfile.write(content)

    def _abort(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _TO_ABORT)
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Silence."""
