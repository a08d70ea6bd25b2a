"""An output in napari: a reader plugin (npe2), and `vemdiffuse view --napari`.

The usual OME-Zarr reader of napari ignores the translation; this one gives all arrays, scale and translation
in nm, and labels as labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vemdiffuse_pipe.errors import ConfigError, VemdiffuseError
from vemdiffuse_pipe.handoff.views import MAX_UNCERTAINTY
from vemdiffuse_pipe.storage import open_sink, open_source

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """The function that reads `path`, or None where it is no output of ours: what napari asks first."""
    if not isinstance(path, str):
        return None
    try:
        open_sink(path)
    except VemdiffuseError:
        return None
    return read_layers


def read_layers(path: str) -> list[LayerData]:
    """(data, attributes, type) of every array: levels as lazy arrays, scale and translation in nm."""
    sink = open_sink(path)
    layers = []
    for name in sink.arrays:
        source = open_source(f"{path}/{name}")
        frame = source.spec.frame
        attributes: dict[str, Any] = {
            "name": name,
            "scale": [float(s) for s in frame.voxel_size_nm],
            "translate": [float(c) for c in frame.centre_nm],
            "units": ["nm"] * 3,
        }
        if name == "uncertainty":
            attributes |= {
                "colormap": "inferno",
                "blending": "additive",
                "contrast_limits": [0, MAX_UNCERTAINTY],
            }
        levels = _levels(path, name, source.spec.n_levels)
        kind = "image" if name in ("em", "sample", "uncertainty") else "labels"
        layers.append((levels, attributes | {"multiscale": len(levels) > 1}, kind))
    return [
        (data if attributes["multiscale"] else data[0], attributes, kind) for data, attributes, kind in layers
    ]


def open_in_napari(output: str) -> None:
    """Show `output` in napari until its window is closed. Raises ConfigError where it is not installed."""
    try:
        import napari
    except ImportError:
        raise ConfigError("napari is not installed; `pip install napari[all]` brings it") from None
    viewer = napari.Viewer(ndisplay=2)
    for data, attributes, kind in read_layers(output):
        getattr(viewer, f"add_{kind}")(data, **attributes)
    napari.run()


def _levels(path: str, name: str, n_levels: int) -> list[Any]:
    """The levels as arrays that are read when they are looked at, finest first."""
    import zarr

    group = zarr.open_group(f"{path}/{name}", mode="r")
    return [group[str(level)] for level in range(n_levels)]
