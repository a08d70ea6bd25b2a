"""What `vemdiffuse train` prints when a training ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from vemdiffuse_pipe.cli.train import _print
from vemdiffuse_pipe.training.loop import Stopped, TrainingOutcome
from vemdiffuse_pipe.training.run import Trained


@pytest.mark.parametrize(
    ("stopped", "text"),
    [("", "7, "), ("patience", "7, no better score for a long time, "), ("time", "7, time is up, ")],
)
def test_a_training_says_why_it_stopped_early(
    capsys: pytest.CaptureFixture[str], stopped: Stopped, text: str
) -> None:
    outcome = TrainingOutcome(step=7, stopped=stopped, best=20.0, best_step=5, elapsed_s=3.0)
    _print(Trained(outcome, Path("folder"), Path("folder/best.safetensors")), as_json=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("steps"))
    assert line.removeprefix("steps").strip().startswith(text)
