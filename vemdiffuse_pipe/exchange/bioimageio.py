"""A model as a package of the bioimage.io model zoo: weights, architecture, test tensors, description.

PACKAGE/  bioimageio.yaml    the description, format 0.5 (JSON, which is YAML)
          weights.pt         a state dict: tensors only, opened with weights_only
          architecture.py    the network and its sampler, imports torch only
          sections.npy       what goes in, and with this noise ...
          noise.npy
          planes.npy         ... comes out
          cover.png README.md
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.errors import ModelError, OutputError
from vemdiffuse_pipe.evaluation import picture
from vemdiffuse_pipe.exchange.standalone import GapNetwork, architecture_source
from vemdiffuse_pipe.geometry.grey import to_grey
from vemdiffuse_pipe.models.card import BUILTIN, ModelCard, find_card, find_checkpoint, read_card
from vemdiffuse_pipe.models.checkpoint import load_network
from vemdiffuse_pipe.models.noise import voxel_noise
from vemdiffuse_pipe.phantom import phantom

FORMAT_VERSION = "0.5.4"
SIDE_PX = 64
SPDX = ("BSD-3-Clause", "BSD-2-Clause", "MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0")
CITATIONS = {
    "Lu et al., Nature Communications 15:4677, 2024 (the method, vEMDiffuse)": "10.1038/s41467-024-49125-z",
    "Karras et al., NeurIPS 2022 (preconditioning and noise levels)": "10.48550/arXiv.2206.00364",
    "Lu et al., 2022 (the sampler, DPM-Solver++)": "10.48550/arXiv.2211.01095",
}


@dataclass(frozen=True, slots=True)
class _Gap:
    """One gap: what goes in and what comes out, each (1, c, y, x) float32."""

    sections: torch.Tensor
    noise: torch.Tensor
    planes: torch.Tensor


def export_bioimageio(model: str, target: Path, *, ratio: int = 5) -> Path:
    """Write `model` as a bioimage.io package for gaps of `ratio`, and return `target`.

    `model`: a name or the path of a checkpoint. `target`: a folder to be made, or a file ending in .zip.
    It appears whole or not at all. Raises ModelError for a model that is no lean diffusion network or does
    not fill such gaps, OutputError where something is at `target` or nothing can be written.
    """
    card = find_card(model) if model in BUILTIN["isotropic"] else read_card(find_checkpoint(model))
    _check(model, card, ratio)
    if target.exists():
        raise OutputError(f"{target} is there already; name a folder or a .zip file that is not")
    network = GapNetwork(**_sizes(card), ratio=ratio, steps=card.steps, residual_scale=card.residual_scale)
    network.network.load_state_dict(load_network(find_checkpoint(model), card).state_dict())
    try:
        with tempfile.TemporaryDirectory(dir=target.absolute().parent) as scratch:
            folder = Path(scratch) / "package"
            folder.mkdir()
            _write(folder, card, network.eval(), ratio)
            _put(folder, target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({type(error).__name__}); choose another place"
        ) from None
    return target


def _check(model: str, card: ModelCard, ratio: int) -> None:
    if not card.fills_gaps:
        raise ModelError(
            f"model {model[:80]} was trained for task {card.task}; what can be exported are lean networks "
            "that fill gaps, of task isotropic"
        )
    if card.kind != "lean":
        raise ModelError(f"model {model[:80]} is of kind {card.kind}; lean networks can be exported")
    if not card.min_ratio <= ratio <= card.max_ratio:
        raise ModelError(
            f"model {model[:80]} fills gaps of ratio {card.min_ratio} to {card.max_ratio}, not {ratio}; "
            "choose another --ratio"
        )


def _put(folder: Path, target: Path) -> None:
    if target.suffix == ".zip":
        Path(shutil.make_archive(str(folder), "zip", folder)).replace(target)
    else:
        folder.rename(target)


@torch.inference_mode()
def _sampled(network: GapNetwork, ratio: int) -> _Gap:
    volume = phantom((ratio + 1, SIDE_PX, SIDE_PX), 0)
    sections = torch.from_numpy(volume[[0, -1]].astype(np.float32))[None]
    noise = voxel_noise(0, 0, torch.arange(1, ratio), (0, 0), (SIDE_PX, SIDE_PX))[None]
    return _Gap(sections, noise, network(sections, noise))


def _write(folder: Path, card: ModelCard, network: GapNetwork, ratio: int) -> None:
    gap = _sampled(network, ratio)
    for name, tensor in (("sections", gap.sections), ("noise", gap.noise), ("planes", gap.planes)):
        np.save(folder / f"{name}.npy", tensor.numpy())
    torch.save({k: v.half().contiguous() for k, v in network.state_dict().items()}, folder / "weights.pt")
    (folder / "architecture.py").write_text(architecture_source())
    (folder / "README.md").write_text(_documentation(card, ratio))
    lower, plane, upper = (
        to_grey(v.numpy()) for v in (gap.sections[0, 0], gap.planes[0, ratio // 2 - 1], gap.sections[0, 1])
    )
    picture({"section": lower, "generated": plane, "next section": upper}, scale=3).save(folder / "cover.png")
    description = json.dumps(_description(folder, card, network, ratio), indent=2)
    (folder / "bioimageio.yaml").write_text(f"{description}\n")


def _description(folder: Path, card: ModelCard, network: GapNetwork, ratio: int) -> dict[str, Json]:
    planes: Json = [f"plane_{j}" for j in range(1, ratio)]
    multiple = card.multiple_px
    free: Json = {"min": max(SIDE_PX // multiple, 1) * multiple, "step": multiple}
    same: dict[str, Json] = {axis: {"tensor_id": "sections", "axis_id": axis} for axis in ("y", "x")}
    described: dict[str, Json] = {"type": "float32", "unit": "arbitrary unit"}
    sections = _tensor(folder, "sections", ["lower", "upper"], {"y": free, "x": free}, described)
    noise = _tensor(folder, "noise", planes, same, described) | {
        "optional": True,
        "description": "normal deviates; without them: the best single estimate, in one evaluation",
    }
    return {
        "format_version": FORMAT_VERSION,
        "type": "model",
        "name": f"vemdiffuse_pipe {_plain(card.name)} at ratio {ratio}",
        "description": f"Draws the {ratio - 1} planes between two sections of a volume electron micrograph.",
        "authors": [{"name": "the vemdiffuse_pipe developers"}],
        "cite": [{"text": text, "doi": doi} for text, doi in CITATIONS.items()],
        "license": next((spdx for spdx in SPDX if spdx in card.licence), None),
        "documentation": _file(folder, "README.md"),
        "covers": [_file(folder, "cover.png")],
        "tags": ["electron-microscopy", "volume-em", "isotropic", "diffusion", "pytorch"],
        "inputs": [sections, noise],
        "outputs": [_tensor(folder, "planes", planes, same, described)],
        "weights": {
            "pytorch_state_dict": {
                **_file(folder, "weights.pt"),
                "architecture": {
                    **_file(folder, "architecture.py"),
                    "callable": GapNetwork.__name__,
                    "kwargs": _kwargs(card, network),
                },
                "pytorch_version": torch.__version__.partition("+")[0],
            }
        },
    }


def _kwargs(card: ModelCard, network: GapNetwork) -> dict[str, Json]:
    return {
        **_sizes(card),
        "ratio": network.ratio,
        "steps": network.steps,
        "residual_scale": network.residual_scale,
    }


def _sizes(card: ModelCard) -> dict[str, Any]:
    """The sizes of a lean network by name, as JSON has them."""
    return {name: list(n) if isinstance(n, tuple) else n for name, n in card.sizes.items()}


def _tensor(
    folder: Path, name: str, channels: Json, sizes: dict[str, Json], data: dict[str, Json]
) -> dict[str, Json]:
    """A tensor of the description: batch, channels, y, x, with its test tensor."""
    space: list[Json] = [{"type": "space", "id": axis, "size": size} for axis, size in sizes.items()]
    return {
        "id": name,
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *space],
        "test_tensor": _file(folder, f"{name}.npy"),
        "data": {**data},
    }


def _file(folder: Path, name: str) -> dict[str, Json]:
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def _plain(name: str) -> str:
    """A name without what a zoo does not allow in one."""
    return "".join(c if c.isalnum() or c in "_-" else " " for c in name)[:60]


def _documentation(card: ModelCard, ratio: int) -> str:
    return f"""# vemdiffuse_pipe {_plain(card.name)}, ratio {ratio}

Two neighbouring sections of a volume electron micrograph in (grey levels, 0 to 255), the {ratio - 1} planes
between them out. With noise: one sample of what may lie there, with the texture of real planes. Without: the
best single estimate, which is smoother. The mean of several samples errs less than one, their spread says
where to doubt.

Planes are drawn, not seen: a sample may show detail that was not there.

- Trained on: {card.trained_on or "not stated"}
- How: {card.training or "not stated"}
- Measured: {card.figures or "not stated"}
- Voxels of training, nm: {card.voxel_size_nm or "not stated"}
- Licence: {card.licence or "not stated"}
- A pixel looks at {card.context_px} px around it. Sides are multiples of {card.multiple_px} px.
- The contrast is measured on the two sections together, so give it whole sections; `vemdiffuse reconstruct`
  measures it once for a volume, cuts large sections into tiles that agree, and gives the spread as well.

## Validation

`planes.npy` is what comes out for `sections.npy` and `noise.npy`, a synthetic volume. How good planes of real
tissue are is measured by `vemdiffuse compare`.
"""
