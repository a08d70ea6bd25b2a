"""Isotropic electron-microscopy volumes, with an uncertainty, from anisotropic ones of any size.

    from vemdiffuse_pipe import reconstruct
    outcome = reconstruct("stack.tif", "out.zarr", voxel_size_nm=(50, 4.6, 4.6))

Every command of the command line is a function here, with the same name. Names are imported when they are
first used, so that looking at metadata never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vemdiffuse_pipe.comparison.compare import compare
    from vemdiffuse_pipe.comparison.file import load_comparison
    from vemdiffuse_pipe.comparison.stored import evaluate
    from vemdiffuse_pipe.config import load as load_run_file
    from vemdiffuse_pipe.errors import VemdiffuseError
    from vemdiffuse_pipe.geometry.box import Box
    from vemdiffuse_pipe.geometry.frame import Frame
    from vemdiffuse_pipe.handoff.export import ExportRequest, export
    from vemdiffuse_pipe.holdout.run import selftest
    from vemdiffuse_pipe.monitor.event_log import events
    from vemdiffuse_pipe.monitor.status import status
    from vemdiffuse_pipe.output.preparation import plan_run
    from vemdiffuse_pipe.plan.estimate import estimate
    from vemdiffuse_pipe.running.levels.pyramid import pyramid
    from vemdiffuse_pipe.running.reconstruct import reconstruct, retry, run
    from vemdiffuse_pipe.running.submission import make_submission, submit
    from vemdiffuse_pipe.running.verify import verify
    from vemdiffuse_pipe.storage import create_sink, open_source
    from vemdiffuse_pipe.storage.catalogue import datasets
    from vemdiffuse_pipe.survey.inspection import inspect
    from vemdiffuse_pipe.training.adapt.run import adapt
    from vemdiffuse_pipe.training.register import register
    from vemdiffuse_pipe.training.run import train
    from vemdiffuse_pipe.training.settings import load as load_train_file

__version__ = "0.1.0"
__all__ = [
    "Box",
    "ExportRequest",
    "Frame",
    "VemdiffuseError",
    "adapt",
    "compare",
    "create_sink",
    "datasets",
    "estimate",
    "evaluate",
    "events",
    "export",
    "inspect",
    "load_comparison",
    "load_run_file",
    "load_train_file",
    "make_submission",
    "open_source",
    "plan_run",
    "pyramid",
    "reconstruct",
    "register",
    "retry",
    "run",
    "selftest",
    "status",
    "submit",
    "train",
    "verify",
]

_HOMES = {
    "Box": "geometry.box",
    "ExportRequest": "handoff.export",
    "Frame": "geometry.frame",
    "VemdiffuseError": "errors",
    "adapt": "training.adapt.run",
    "compare": "comparison.compare",
    "create_sink": "storage",
    "datasets": "storage.catalogue",
    "estimate": "plan.estimate",
    "evaluate": "comparison.stored",
    "events": "monitor.event_log",
    "export": "handoff.export",
    "inspect": "survey.inspection",
    "load_comparison": "comparison.file",
    "load_run_file": "config",
    "load_train_file": "training.settings",
    "make_submission": "running.submission",
    "open_source": "storage",
    "plan_run": "output.preparation",
    "pyramid": "running.levels.pyramid",
    "reconstruct": "running.reconstruct",
    "register": "training.register",
    "retry": "running.reconstruct",
    "run": "running.reconstruct",
    "selftest": "holdout.run",
    "status": "monitor.status",
    "submit": "running.submission",
    "train": "training.run",
    "verify": "running.verify",
}
_OTHER_NAMES = {"load_run_file": "load", "load_train_file": "load"}  # in the module that they are from


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), _OTHER_NAMES.get(name, name))
