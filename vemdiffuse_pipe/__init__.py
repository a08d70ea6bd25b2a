"""Isotropic electron-microscopy volumes, with an uncertainty, from anisotropic ones of any size.

    from vemdiffuse_pipe import reconstruct
    outcome = reconstruct("stack.tif", "out.zarr", voxel_size_nm=(50, 4.6, 4.6))

Names are imported when they are first used, so that looking at metadata never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vemdiffuse_pipe.errors import VemdiffuseError
    from vemdiffuse_pipe.evaluation import evaluate
    from vemdiffuse_pipe.geometry.box import Box
    from vemdiffuse_pipe.geometry.frame import Frame
    from vemdiffuse_pipe.plan.plan import make_plan
    from vemdiffuse_pipe.running.reconstruct import reconstruct, run
    from vemdiffuse_pipe.storage import create_sink, open_source

__version__ = "0.1.0"
__all__ = [
    "Box",
    "Frame",
    "VemdiffuseError",
    "create_sink",
    "evaluate",
    "make_plan",
    "open_source",
    "reconstruct",
    "run",
]

_HOMES = {
    "Box": "geometry.box",
    "Frame": "geometry.frame",
    "VemdiffuseError": "errors",
    "create_sink": "storage",
    "evaluate": "evaluation",
    "make_plan": "plan.plan",
    "open_source": "storage",
    "reconstruct": "running.reconstruct",
    "run": "running.reconstruct",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
