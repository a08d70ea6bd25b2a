"""A network's calls are captured once they are worth it, and where that fails they are made as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models import capture
from vemdiffuse_pipe.models.capture import CapturedForward, capture_network, shape_of


class Doubled(nn.Module):
    """A network whose captured calls can be told from others."""

    def __init__(self) -> None:
        super().__init__()
        self.captured: list[tuple[object, ...]] = []

    def forward(self, x: Tensor, ratio: float) -> Tensor:
        return 2 * x * ratio

    def noted(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def captured(*args: object) -> Any:
            self.captured.append(shape_of(args))
            return forward(*args)

        return captured


def captured_network() -> Doubled:
    network = Doubled()
    network.forward = CapturedForward(network.forward, network.noted)  # type: ignore[method-assign]
    return network


def test_only_shapes_that_come_up_often_are_captured_and_not_too_many() -> None:
    network = captured_network()
    for side in range(1, 9):
        n_calls = 1 if side == 1 else capture.WORTH_CALLS + 1
        for _ in range(n_calls):
            assert torch.equal(network(torch.ones(side), 3.0), torch.full((side,), 6.0))
    shapes = {side for ((side,), _) in network.captured}  # type: ignore[misc]
    assert shapes == set(range(2, 2 + capture.MAX_SHAPES))
    assert len(network.captured) == 2 * capture.MAX_SHAPES


def test_where_capturing_fails_the_call_is_made_as_it_is_and_it_is_said_why() -> None:
    def failing(forward: Callable[..., Any]) -> Callable[..., Any]:
        def captured(*args: object) -> Any:
            raise RuntimeError("no C compiler\nand a long story")

        return captured

    forward = CapturedForward(Doubled().forward, failing)
    for _ in range(capture.WORTH_CALLS + 2):
        assert torch.equal(forward(torch.ones(2), 3.0), torch.full((2,), 6.0))
    assert forward.state == "not captured: RuntimeError no C compiler"


def test_out_of_memory_is_no_failure_to_capture() -> None:
    def cramped(forward: Callable[..., Any]) -> Callable[..., Any]:
        def captured(*args: object) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return captured

    forward = CapturedForward(Doubled().forward, cramped)
    for _ in range(capture.WORTH_CALLS - 1):
        forward(torch.ones(2), 3.0)
    with pytest.raises(torch.OutOfMemoryError):
        forward(torch.ones(2), 3.0)
    assert forward.state == ""


@pytest.mark.parametrize("how", ["auto", "compile", "graphs", "off"])
def test_nothing_is_captured_on_a_cpu(how: str) -> None:
    network = Doubled()
    assert not isinstance(capture_network(network, "cpu", how).forward, CapturedForward)


def test_networks_render_where_scipy_is_not_installed() -> None:
    """A pack for a GPU machine has no room for it."""
    hidden = "import sys; sys.modules.update(scipy=None, skimage=None); "
    imports = "import vemdiffuse_pipe.render.block, vemdiffuse_pipe.models.checkpoint"
    subprocess.run([sys.executable, "-c", hidden + imports], check=True, timeout=120)
