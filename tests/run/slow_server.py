"""A web server on loopback that takes its time before it gives a chunk: a run that reads from it is slow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

METADATA = (".zarray", ".zattrs", ".zgroup", ".json", "attributes", "info")


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # else parallel reads wait for each other's connections

    def handle_error(self, *_: object) -> None:
        pass  # whoever asked was killed


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, delay_s: float, directory: str) -> None:
        self._delay_s = delay_s
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if not self.path.endswith(METADATA):
            time.sleep(self._delay_s)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow_server(folder: Path, delay_s: float) -> Iterator[str]:
    """The address of `folder`; each chunk comes `delay_s` late."""
    server = _Server(("127.0.0.1", 0), partial(_Handler, delay_s=delay_s, directory=str(folder)))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
