"""A picture of a viewer's page, drawn by a browser that nobody sees.

Chromium is begun in a session and a profile of its own and ended with all its children, whatever happens. The
picture comes from neuroglancer itself, which waits until all chunks in view are drawn: the browser's own
screenshot would be taken too early, or never.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from vemdiffuse_pipe.errors import ConfigError, DataError

if TYPE_CHECKING:
    import neuroglancer

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LIMIT_S = 120.0
_ENDS_WITHIN_S = 5.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
)


def find_chromium() -> str:
    """The path of a browser. Raises ConfigError where there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise ConfigError(
            f"no browser was found ({', '.join(PROGRAMS)}); --screenshot needs Chromium: install it, or "
            "leave --screenshot out and open the address that `vemdiffuse view` prints"
        )
    return found


def screenshot(viewer: neuroglancer.Viewer, size_px: tuple[int, int], limit_s: float = LIMIT_S) -> bytes:
    """A PNG of what `viewer` shows, (width, height) px. Raises ConfigError without a browser, DataError where
    the page does not finish within `limit_s`. No process is left.
    """
    program = find_chromium()
    with viewer.config_state.txn() as config:
        config.show_ui_controls = False
        config.show_panel_borders = False
        config.viewer_size = list(size_px)
    arrived: SimpleQueue[bytes] = SimpleQueue()
    with _browser(program, viewer.get_viewer_url(), size_px):
        viewer.async_screenshot(lambda reply: arrived.put(reply.screenshot.image))
        try:
            return arrived.get(timeout=limit_s)
        except Empty:
            raise DataError(
                f"the viewer did not finish its picture within {limit_s:.0f} s; a layer cannot be read, or "
                "this machine is busy: try again, or look at the page without --screenshot"
            ) from None


@contextmanager
def _browser(program: str, address: str, size_px: tuple[int, int]) -> Iterator[None]:
    profile = Path(tempfile.mkdtemp(prefix="vemdiffuse-view-"))
    width, height = size_px
    command = [
        program,
        *_FLAGS,
        f"--user-data-dir={profile}",
        f"--window-size={width},{height + 200}",
        address,
    ]
    process = subprocess.Popen(  # noqa: S603 (a browser that was found on the PATH, and our own address)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        _end(process)
        shutil.rmtree(profile, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the browser and all of its children: they are one process group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_WITHIN_S)
