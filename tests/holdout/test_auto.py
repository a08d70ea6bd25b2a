"""`name = "auto"`: the self-test chooses once, and the choice is the run's from then on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from vemdiffuse_pipe.cli.entry import run_command
from vemdiffuse_pipe.config import RunFile, parse
from vemdiffuse_pipe.errors import ConfigError, ModelError, OutputError
from vemdiffuse_pipe.holdout.auto import with_chosen_model
from vemdiffuse_pipe.output.preparation import prepare
from vemdiffuse_pipe.output.run_output import open_run_output
from vemdiffuse_pipe.phantom import phantom
from vemdiffuse_pipe.running.reconstruct import run


@pytest.fixture
def auto(tmp_path: Path) -> Callable[..., RunFile]:
    """A run file that leaves the model to the self-test."""
    tifffile.imwrite(tmp_path / "em.tif", phantom((5, 40, 40), 1), photometric="minisblack")

    def made(**model: object) -> RunFile:
        source = {"url": str(tmp_path / "em.tif"), "voxel_size_nm": [20, 10, 10]}
        output = {"url": str(tmp_path / "out.zarr")}
        return parse({"source": source, "output": output, "model": {"name": "auto", **model}})

    return made


def test_the_choice_is_in_the_identity_and_running_again_goes_on_with_it(
    auto: Callable[..., RunFile],
) -> None:
    run_file = auto(candidates=["cubic", "linear"])
    assert run(run_file).exit_code == 0
    output = open_run_output(run_file.output.url)
    identity = output.identity
    assert identity["model"] == output.run_file.model.name
    assert identity["model"] in ("linear", "cubic")

    def unheard_of(test: object) -> None:
        raise AssertionError("tested again")

    again = with_chosen_model(run_file, unheard_of)
    assert again.model.name == identity["model"]
    assert run(run_file).n_done == run(run_file).n_blocks
    other = {"cubic": "linear", "linear": "cubic"}[str(identity["model"])]
    with pytest.raises(OutputError, match="model"):
        run(
            auto().model_copy(
                update={"model": run_file.model.model_copy(update={"name": other, "candidates": None})}
            )
        )


def test_auto_is_not_planned_and_candidates_need_it(auto: Callable[..., RunFile]) -> None:
    with pytest.raises(ModelError, match="chosen by a self-test when a run begins"):
        prepare(auto())
    with pytest.raises(ConfigError, match="go with name"):
        prepare(auto(name="linear", candidates=["linear"]))
    with pytest.raises(ConfigError, match="fill gaps"):
        with_chosen_model(auto(task="denoise"))


def test_the_command_prints_a_table_a_sentence_and_draws_a_picture(
    auto: Callable[..., RunFile],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auto()
    monkeypatch.chdir(tmp_path)
    asked = [
        "selftest",
        "em.tif",
        "--voxel-size",
        "20",
        "10",
        "10",
        "--models",
        "linear,cubic",
        "--places",
        "2",
    ]
    assert run_command([*asked, "--picture", "test.png"]) == 0
    out = capsys.readouterr().out
    assert "linear" in out
    assert "twice as wide as the real ones" in out
    assert Path("test.png").stat().st_size > 1000
    assert run_command([*asked, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert list(facts["models"]) == ["linear", "cubic"]
    assert facts["verdict"].casefold() in out.casefold()
    assert len(facts["places"]) == 2
    assert np.isfinite(facts["models"]["linear"]["estimate"]["psnr"])


@pytest.mark.parametrize(
    ("models", "said"), [("nobody", "no model 'nobody'"), ("udim", "ratio 5 alone"), ("auto", "self-test")]
)
def test_a_model_that_cannot_be_tested_is_refused(
    auto: Callable[..., RunFile], models: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run_command(["selftest", auto().source.url, "--voxel-size", "20", "10", "10", "--models", models])
        == 2
    )
    assert said in capsys.readouterr().err
