"""`name = "auto"` in a run file: the self-test chooses the model, once, when the run begins.

The choice stands in the place of "auto" from then on: in the run's identity and in the run file that is
stored with the output, so that a run that resumes, and every part of it, goes on with the same model.
"""

from __future__ import annotations

from collections.abc import Callable

from vemdiffuse_pipe.config import RunFile
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.holdout.run import MODELS, SelfTest, selftest
from vemdiffuse_pipe.models.card import AUTO
from vemdiffuse_pipe.output.preparation import open_run_source, with_absolute_paths
from vemdiffuse_pipe.output.run_output import is_output, open_run_output


def with_chosen_model(
    run_file: RunFile, on_choice: Callable[[SelfTest], None] = lambda test: None
) -> RunFile:
    """The run file with a model in the place of "auto"; itself where it names one.

    The model is that of the output where there is one, else the best estimate of the self-test among
    `candidates`. `on_choice` hears of the test. Raises what `selftest` raises; OutputError.
    """
    table = run_file.model
    if table.name != AUTO:
        return run_file
    if table.task != "isotropic":
        raise ConfigError(
            f'name = "{AUTO}" chooses among models that fill gaps; name a model for task {table.task}'
        )
    url = run_file.output.url
    if is_output(url):
        name = open_run_output(url).run_file.model.name
    else:
        source = open_run_source(with_absolute_paths(run_file))
        test = selftest(
            source, table.candidates or MODELS, device=run_file.run.device, contrast=run_file.source.contrast
        )
        on_choice(test)
        name = test.verdict.estimate
    return run_file.model_copy(update={"model": table.model_copy(update={"name": name, "candidates": None})})
