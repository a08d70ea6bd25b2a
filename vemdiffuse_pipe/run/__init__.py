"""What a run does: receipts, the dask graph, the driver, events. The only place that knows dask.

The name `vemdiffuse_pipe.run` is the function of the library and, because Python binds a package to its
parent's name, this package too. So the package can be called: it is `run.reconstruct.run`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from vemdiffuse_pipe.run.events import silent

if TYPE_CHECKING:
    from vemdiffuse_pipe.config import RunFile
    from vemdiffuse_pipe.run.events import Listener, Outcome


class _CallablePackage(ModuleType):
    def __call__(
        self, run_file: RunFile, *, listener: Listener = silent, max_blocks: int | None = None
    ) -> Outcome:
        """Do what a run file says; see `vemdiffuse_pipe.run.reconstruct.run`."""
        from vemdiffuse_pipe.run.reconstruct import run  # imports torch and dask

        return run(run_file, listener=listener, max_blocks=max_blocks)


sys.modules[__name__].__class__ = _CallablePackage
