"""A server that answers everything with 200 and a page is read like one that says 404."""

import json
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from stored_volumes import FORMATS, FRAME, SHAPE, VOXELS, chunk_files, copied, ome_zarr_04

from vemdiffuse_pipe.errors import CorruptDataError, MissingDataError, SourceError
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.storage import open_source, stores

WHOLE = Box.of_shape(SHAPE)
NAMES = [
    "ome-zarr-0.4",
    "ome-zarr-0.5",
    "ome-zarr-0.5-sharded",
    "zarr-v2-fortran",
    "n5-cosem",
    "precomputed-raw",
]
STORED = [stored for stored in FORMATS if stored.name in NAMES]
HTML = b"<!doctype html><title>Viewer</title>"


class CatchAll(SimpleHTTPRequestHandler):
    """Files of a folder; of what is not there, a page."""

    page = HTML

    def send_head(self):
        if (self.server.folder / self.path.lstrip("/")).is_file():
            return super().send_head()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.page * (self.command == "GET"))
        return None

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


@contextmanager
def served(folder, page=HTML):
    handler = partial(type("Handler", (CatchAll,), {"page": page}), directory=str(folder))
    with Server(("127.0.0.1", 0), handler) as server:
        server.folder = folder
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        stores.page_of_absent.cache_clear()  # another test's server may have had this port
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("page", [HTML, b"\n<html>" + b" " * 999, b'{"error": "not found"}', b""])
def test_volumes_are_read(page, written, tmp_path):
    for stored in STORED:
        copied(written(stored), tmp_path / stored.name)
    with served(tmp_path, page) as url:
        for stored in STORED:
            source = open_source(f"{url}/{stored.name}/{stored.inside}", **stored.options)
            assert source.spec.frame == FRAME
            assert (source.read(WHOLE) == VOXELS).all()


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_an_absent_chunk_is_never_decoded(stored, written, tmp_path):
    copied(written(stored), tmp_path / "em")
    chunk_files(tmp_path / "em")[0].unlink()
    with served(tmp_path) as url, pytest.raises((MissingDataError, CorruptDataError), match=url[7:]):
        open_source(f"{url}/em", **stored.options).read(Box((0, 0, 0), (1, 1, 1)))


def test_a_page_that_is_as_long_as_a_chunk_is_not_taken_for_one(tmp_path):
    ome_zarr_04(tmp_path / "em")
    document = tmp_path / "em" / "s0" / ".zarray"
    document.write_text(json.dumps(json.loads(document.read_text()) | {"compressor": None}))
    for chunk in chunk_files(tmp_path / "em"):
        chunk.unlink()
    with served(tmp_path, HTML.ljust(5 * 7 * 16)) as url:
        with pytest.raises(MissingDataError):
            open_source(f"{url}/em").read(Box((0, 0, 0), (1, 1, 1)))
        filled = open_source(f"{url}/em", missing="fill").read(Box((0, 0, 0), (1, 1, 1)))
        assert filled.item() == 0


def test_where_nothing_is_the_page_is_named(tmp_path):
    with served(tmp_path) as url, pytest.raises(SourceError, match="page of HTML"):
        open_source(f"{url}/em")
