"""How good a reconstruction is: metrics, interpolation to hold it against, a table and a picture."""

from vemdiffuse_pipe.evaluation.interpolation import interpolate
from vemdiffuse_pipe.evaluation.picture import picture
from vemdiffuse_pipe.evaluation.report import Report, evaluate
from vemdiffuse_pipe.evaluation.table import render_table

__all__ = ["Report", "evaluate", "interpolate", "picture", "render_table"]
