"""The network of a model, captured once for each shape of its inputs: a GPU is not kept waiting.

    compile    torch.compile: kernels of many small steps fused; takes a minute a shape, and a C compiler
    graphs     CUDA graphs: the same kernels as without, started in one call
    off        called as it is

A shape is captured once it has come up a few times: a volume's edges are not worth it. Where capturing
fails the network is called as it is, from then on, and `capture_state` says why. Captured kernels round
otherwise than others: within the tolerance of a GPU, and never on a CPU, where nothing is captured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.protocol import Model

WORTH_CALLS = 3  # calls of one shape, before it is captured
MAX_SHAPES = 4
N_WARM_UP = 3  # calls before a graph is recorded: kernels are chosen in them

Forward: TypeAlias = Callable[..., Any]
Shape: TypeAlias = tuple[object, ...]


def capture_network(network: nn.Module, device: str, how: str) -> nn.Module:
    """The network itself, its calls captured. `how`: auto, compile, graphs or off; auto is compile."""
    if how == "off" or not device.startswith("cuda"):
        return network
    network.forward = CapturedForward(network.forward, GraphedForward if how == "graphs" else compiled)
    return network


def compiled(forward: Forward) -> Forward:
    """`forward`, compiled for each shape by itself."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * MAX_SHAPES)
    return torch.compile(forward, dynamic=False)


def capture_state(model: Model) -> str:
    """How a model's network is called: '' as it is, 'captured', or 'not captured: ' and why."""
    part: object = model
    while not isinstance(part, nn.Module):
        part = getattr(part, "network", None)
        if part is None:
            return ""
    forward = part.forward
    return forward.state if isinstance(forward, CapturedForward) else ""


class CapturedForward:
    """`forward`, captured by `capture` for shapes that come up often. `state`: see `capture_state`."""

    def __init__(self, forward: Forward, capture: Callable[[Forward], Forward]) -> None:
        self._forward = forward
        self._captured = capture(forward)
        self._n_calls: Counter[Shape] = Counter()
        self._shapes: set[Shape] = set()
        self.state = ""

    def __call__(self, *args: object, **named: object) -> Any:
        """What `forward` returns. A call with named arguments is made as it is."""
        if named or not self._is_captured(shape_of(args)):
            return self._forward(*args, **named)
        try:
            result = self._captured(*args)
            self.state = "captured"
            return result
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, a driver or a library: whatever it is, there is another way
            first, *_ = str(error).strip().splitlines() or [""]
            self.state = f"not captured: {type(error).__name__} {first}"[:200]
            return self._forward(*args)

    def _is_captured(self, shape: Shape) -> bool:
        """True where a call of this shape is to be captured; counts it."""
        if self.state.startswith("not"):
            return False
        self._n_calls[shape] += 1
        if self._n_calls[shape] >= WORTH_CALLS and len(self._shapes) < MAX_SHAPES:
            self._shapes.add(shape)
        return shape in self._shapes


class GraphedForward:
    """`forward` by CUDA graphs, one a shape: inputs are copied into its own, and outputs out of it.

    Two shapes never run at once, so they share memory.
    """

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, *args: object) -> Any:
        """What `forward` returns."""
        shape = shape_of(args)
        if shape not in self._graphs:
            self._graphs[shape] = self._recorded(args)
        graph, inputs, outputs = self._graphs[shape]
        for own, given in zip(inputs, (a for a in args if isinstance(a, Tensor)), strict=True):
            own.copy_(given)
        graph.replay()
        return outputs.clone() if isinstance(outputs, Tensor) else tuple(output.clone() for output in outputs)

    def _recorded(self, args: tuple[object, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        own = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(N_WARM_UP):
                self._forward(*own)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._forward(*own)
        return graph, [a for a in own if isinstance(a, Tensor)], outputs


def shape_of(args: tuple[object, ...]) -> Shape:
    """What two calls must share to be captured once: shapes of tensors, and what is no tensor."""
    return tuple(tuple(a.shape) if isinstance(a, Tensor) else a for a in args)
