"""What the viewer shows: layers over each other in nanometres, and where one looks first.

    source         what was measured, below everything
    em             what was made of it
    sample         one coherent draw, hidden until it is asked for
    uncertainty    dark where sure, bright where doubtful, and transparent at 0
    flags, labels  on top

The state is neuroglancer's own JSON, which its page, its Python package and its links understand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from vemdiffuse_pipe.config import Json
from vemdiffuse_pipe.geometry.frame import Frame, Nm

Layout = Literal["xy", "xz", "4panel"]
LAYOUTS: tuple[Layout, ...] = ("xy", "xz", "4panel")

PUBLIC_PAGE = "https://neuroglancer-demo.appspot.com"
SHOWN_PX = 800.0  # along the shorter side of a first view
MAX_UNCERTAINTY = 80  # stored value that is drawn brightest: 20 grey levels
ORDER = ("source", "em", "sample", "uncertainty", "sample_spread", "flags", "labels")

_GREY = """#uicontrol invlerp normalized(range=[{low}, {high}], window=[0, 255])
void main() {{ emitGrayscale(normalized()); }}"""
# Black, purple, orange, yellow: its lightness grows steadily, so that it is read without seeing colours.
_DOUBT = """#uicontrol invlerp normalized(range=[0, {high}], window=[0, 255])
#uicontrol float opacity slider(min=0, max=1, default=0.7)
vec3 colormap(float u) {{
  return clamp(vec3(1.9 * u, 1.8 * u - 0.6, u < 0.4 ? 1.4 * u : 0.9 - 0.85 * u + 0.2 * u * u), 0.0, 1.0);
}}
void main() {{
  float u = normalized();
  emitRGBA(vec4(colormap(u), opacity * sqrt(u)));
}}"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One volume in the viewer."""

    name: str
    """What it is called, one of `ORDER` or a label's own name."""
    url: str
    """Where the page reads it: an address with neuroglancer's format suffix, such as `|zarr3:`."""
    kind: Literal["image", "uncertainty", "labels"] = "image"
    """How it is drawn."""
    grey_range: tuple[float, float] = (0, 255)
    """Of an image: grey levels that are drawn black and white."""
    is_visible: bool = True
    """Whether it is shown from the start."""


def state(
    layers: Sequence[Layer], frame: Frame, position_nm: Nm | None = None, layout: Layout = "4panel"
) -> dict[str, Json]:
    """Neuroglancer's state: `layers` from below, at `position_nm`, z y x, or in the middle of `frame`.

    Axes are x, y, z in nm, so that layers of other voxel sizes lie over each other. The zoom shows the whole
    section, or as much of a large one as 800 pixels hold at full resolution.
    """
    size, corner = frame.voxel_size_nm, frame.corner_nm
    middle = tuple(c + s * n / 2 for c, s, n in zip(corner, size, frame.shape, strict=True))
    z, y, x = (float(p / s) for p, s in zip(position_nm or middle, size, strict=True))
    dimensions: dict[str, Json] = {
        axis: [float(s) * 1e-9, "m"] for axis, s in zip("xyz", size[::-1], strict=True)
    }
    return {
        "dimensions": dimensions,
        "position": [x, y, z],
        "crossSectionScale": max(0.25, min(4.0, max(frame.shape[1:]) / SHOWN_PX)),
        "projectionScale": 1.5 * max(frame.shape),
        "layers": [_layer(layer) for layer in sorted(layers, key=_place)],
        "layout": layout,
        "showSlices": False,
        "showAxisLines": False,
    }


def public_link(viewer_state: Mapping[str, Json]) -> str:
    """The address of the public page that shows `viewer_state`; its layers must be public too."""
    return f"{PUBLIC_PAGE}/#!{quote(json.dumps(viewer_state, separators=(',', ':')), safe=':/,')}"


def _place(layer: Layer) -> int:
    return ORDER.index(layer.name) if layer.name in ORDER else len(ORDER)


def _layer(layer: Layer) -> dict[str, Json]:
    described: dict[str, Json] = {"name": layer.name, "source": layer.url, "visible": layer.is_visible}
    match layer.kind:
        case "labels":
            return {**described, "type": "segmentation", "selectedAlpha": 0.3}
        case "uncertainty":
            shader = _DOUBT.format(high=MAX_UNCERTAINTY)
            return {**described, "type": "image", "shader": shader, "blend": "default", "opacity": 1}
        case _:
            low, high = layer.grey_range
            shader = _GREY.format(low=float(low), high=float(high))
            return {**described, "type": "image", "shader": shader, "opacity": 1}
