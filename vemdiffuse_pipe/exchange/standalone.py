"""A lean diffusion model as one torch module, for programs that know torch and nothing of this package.

`architecture_source` writes the module and all that it needs into one file that imports torch only.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vemdiffuse_pipe import errors
from vemdiffuse_pipe.models import blocks, lean, preconditioning, samplers
from vemdiffuse_pipe.models.interpolation import linear_planes
from vemdiffuse_pipe.models.lean import LeanConfig, LeanNetwork
from vemdiffuse_pipe.models.preconditioning import edm_denoiser
from vemdiffuse_pipe.models.samplers import dpmpp_2m, karras_sigmas

OURS = __name__.partition(".")[0]


class GapNetwork(nn.Module):
    """Two sections in, the planes between them out, in grey levels: contrast, network and sampler.

    The contrast is that of the two sections together; give it whole sections, or tiles with like contrast.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        n_blocks: int,
        n_basis: int,
        n_embedding: int,
        ratio: int,
        steps: int,
        residual_scale: float,
    ) -> None:
        super().__init__()
        self.network = LeanNetwork(LeanConfig(tuple(channels), n_blocks, n_basis, n_embedding))
        self.ratio, self.steps, self.residual_scale = ratio, steps, residual_scale

    def forward(self, sections: Tensor, noise: Tensor | None = None) -> Tensor:
        """One sample of the planes: (b, ratio - 1, y, x) float32 grey levels, 0 to 255 and a little beyond.

        `sections`: (b, 2, y, x) float32 grey levels; `noise`: (b, ratio - 1, y, x) normal deviates, of
        which the sample is a function. Without noise: the best single estimate, in one evaluation.
        """
        mean = sections.mean((1, 2, 3), keepdim=True)
        std = sections.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
        grey = (sections - mean) / std
        positions = torch.arange(1, self.ratio, device=sections.device) / self.ratio

        def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
            raw: Tensor = self.network(scaled, grey, positions, float(self.ratio), c_noise)
            return raw

        denoise = edm_denoiser(network)
        linear = linear_planes(grey, positions)
        start = torch.zeros_like(linear) if noise is None else noise
        residual = dpmpp_2m(denoise, start, karras_sigmas(1 if noise is None else self.steps))
        planes: Tensor = (linear + self.residual_scale * residual) * std + mean
        return planes


def architecture_source() -> str:
    """A Python file that defines `GapNetwork` and imports nothing of this package.

    Made of the sources of our own modules, without their imports of each other.
    """
    modules = [errors, samplers, preconditioning, blocks, lean]
    needed = {name: source for module in modules for name, source in _needed(module, modules)}
    foreign = {line for module in modules for line in _foreign_imports(module)}
    parts = [
        '"""The planes between two sections, by the lean diffusion network of vemdiffuse_pipe."""',
        "from __future__ import annotations",
        "\n".join(sorted({*foreign, "from dataclasses import dataclass"})),
        *needed.values(),
        *(_body(module) for module in modules),
        inspect.getsource(linear_planes),
        inspect.getsource(GapNetwork),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _needed(module: ModuleType, bundled: list[ModuleType]) -> Iterator[tuple[str, str]]:
    """Names that a module imports from modules of ours that are not bundled, and their sources."""
    bundled_names = {m.__name__ for m in bundled}
    for node in ast.parse(inspect.getsource(module)).body:
        name = str(node.module) if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and name.startswith(f"{OURS}.") and name not in bundled_names:
            for alias in node.names:
                definition = getattr(import_module(name), alias.name)
                source = _fields(definition) if is_dataclass(definition) else inspect.getsource(definition)
                yield alias.name, source


def _fields(kind: Any) -> str:
    """A dataclass that only holds values: names and defaults, without the checks of a checkpoint's card."""
    lines = (f"    {f.name}: {type(f.default).__name__} = {f.default!r}" for f in fields(kind))
    return "\n".join(["@dataclass(frozen=True)", f"class {kind.__name__}:", *lines])


def _foreign_imports(module: ModuleType) -> Iterator[str]:
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import | ast.ImportFrom) and not _is_ours(node):
            yield ast.unparse(node)


def _body(module: ModuleType) -> str:
    """The source of a module without its docstring and its imports, comments and all."""
    source = inspect.getsource(module)
    nodes = ast.parse(source).body
    first = next(n for n in nodes[1:] if not isinstance(n, ast.Import | ast.ImportFrom))
    line = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))])
    return "\n".join(source.splitlines()[line - 1 :])


def _is_ours(node: ast.Import | ast.ImportFrom) -> bool:
    """True for an import of this package, and of the future, which a file may import once only."""
    module = str(node.module) if isinstance(node, ast.ImportFrom) else ""
    return module.startswith((f"{OURS}.", "__future__"))
