"""How good a reconstruction is: metrics, interpolation to compare it with, tables and pictures."""

from vemdiffuse_pipe.evaluation.figure import Scales, figure
from vemdiffuse_pipe.evaluation.interpolation import interpolate
from vemdiffuse_pipe.evaluation.picture import picture
from vemdiffuse_pipe.evaluation.report import Report, evaluate
from vemdiffuse_pipe.evaluation.table import render_table

__all__ = ["Report", "Scales", "evaluate", "figure", "interpolate", "picture", "render_table"]
