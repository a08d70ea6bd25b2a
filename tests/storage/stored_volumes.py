"""The same volume in every format, each written by another program than ours."""

import json
import shutil
import warnings
from dataclasses import dataclass, field
from fractions import Fraction

import h5py
import mrcfile
import numpy as np
import tensorstore as ts
import tifffile
import zarr

from vemdiffuse_pipe.geometry.frame import Frame
from vemdiffuse_pipe.testing import position_coded

SHAPE = (11, 23, 37)
CHUNKS = (5, 7, 16)
VOXELS = position_coded(SHAPE)
SIZE_NM = (Fraction(40), Fraction("4.3"), Fraction("4.3"))
FRAME = Frame(SHAPE, SIZE_NM)
SIZE_XYZ = [4.3, 4.3, 40]


@dataclass(frozen=True)
class Stored:
    """How one program writes the volume, and what `open_source` needs to know to open it."""

    name: str
    write: object
    options: dict = field(default_factory=dict)
    inside: str = ""

    def __str__(self):
        return self.name


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def multiscales(version, axes="zyx", unit="nanometer", nm=1, corner=(0, 0, 0)):
    """OME-Zarr metadata of one level: the translation is the centre of voxel 0, in `nm` nanometres."""
    size = [float(s / nm) for s in SIZE_NM]
    centre = [float((c + s / 2) / nm) for c, s in zip(corner, SIZE_NM, strict=True)]
    more = len(axes) - 3
    kinds = {"t": "time", "c": "channel"}
    return [
        {
            "version": version,
            "name": "em",
            "axes": [
                {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "zyx" else {})
                for a in axes
            ],
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [1.0] * more + size},
                        {"type": "translation", "translation": [0.0] * more + centre},
                    ],
                }
            ],
        }
    ]


def ome_zarr_04(path, axes="zyx", voxels=VOXELS, corner=(0, 0, 0), **options):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["multiscales"] = multiscales("0.4", axes, corner=corner, **options)
    lead = (1,) * (len(axes) - 3)
    array = group.create_array(
        "s0",
        shape=lead + voxels.shape,
        chunks=lead + CHUNKS,
        dtype=voxels.dtype,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": True},
    )
    array[...] = voxels.reshape(array.shape)


def ome_zarr_05(path, shards=None, **options):
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales("0.5", **options)}
    array = group.create_array(
        "s0", shape=SHAPE, chunks=CHUNKS, shards=shards, dtype="uint8", config={"write_empty_chunks": True}
    )
    array[...] = VOXELS


def ome_zarr_05_by_tensorstore(path):
    write_json(
        path / "zarr.json",
        {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": {"version": "0.5", "multiscales": multiscales("0.5")}},
        },
    )
    inner = [
        {"name": "transpose", "configuration": {"order": [2, 1, 0]}},
        {"name": "bytes"},
        {"name": "gzip", "configuration": {"level": 1}},
    ]
    codec = {"name": "sharding_indexed", "configuration": {"chunk_shape": list(CHUNKS), "codecs": inner}}
    metadata = {
        "shape": SHAPE,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 14, 48]}},
        "codecs": [codec],
    }
    _by_tensorstore("zarr3", path / "s0", VOXELS, metadata=metadata)


def bare_zarr(path, **options):
    zarr.create_array(path, data=VOXELS, chunks=CHUNKS, config={"write_empty_chunks": True}, **options)


BLOSC = {"type": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 0}


def n5(path, attributes, voxels=VOXELS, **compression):
    metadata = {
        "dimensions": voxels.shape[::-1],
        "blockSize": CHUNKS[::-1],
        "dataType": voxels.dtype.name,
        "compression": compression or {"type": "gzip"},
    }
    _by_tensorstore("n5", path, voxels.T, metadata=metadata)
    add_attributes(path, attributes)


def add_attributes(path, attributes):
    file = path / "attributes.json"
    write_json(file, (json.loads(file.read_text()) if file.exists() else {}) | attributes)


def cosem_transform(corner=(0, 0, 0), nm=1, unit="nm"):
    return {
        "transform": {
            "axes": ["z", "y", "x"],
            "scale": [float(s / nm) for s in SIZE_NM],
            "translate": [float((c + s / 2) / nm) for c, s in zip(corner, SIZE_NM, strict=True)],
            "units": [unit] * 3,
        }
    }


def n5_cosem(path):
    n5(path / "s0", cosem_transform() | {"pixelResolution": {"dimensions": SIZE_XYZ, "unit": "nm"}})
    dataset = {"path": "s0"} | cosem_transform()
    add_attributes(path, {"multiscales": [{"name": "em", "datasets": [dataset]}]})


def n5_viewer(path):
    n5(path / "s0", {})
    resolution = {"dimensions": [0.0043, 0.0043, 0.04], "unit": "um"}
    add_attributes(path, {"downsamplingFactors": [[1, 1, 1]], "pixelResolution": resolution})


def n5_bigdataviewer(path):
    n5(path / "setup0" / "timepoint0" / "s0", {"downsamplingFactors": [1, 1, 1]})
    add_attributes(path / "setup0", {"downsamplingFactors": [[1, 1, 1]], "dataType": "uint8"})
    add_attributes(path / "setup0" / "timepoint0", {"multiScale": True, "resolution": SIZE_XYZ})


def precomputed(path, encoding="raw", offset=(0, 0, 0), voxels=VOXELS, **scale):
    _by_tensorstore(
        "neuroglancer_precomputed",
        path,
        voxels.T[..., None],
        multiscale_metadata={"type": "image", "data_type": voxels.dtype.name, "num_channels": 1},
        scale_metadata={
            "key": "8_8_40",
            "size": voxels.shape[::-1],
            "chunk_size": CHUNKS[::-1],
            "resolution": SIZE_XYZ,
            "voxel_offset": offset,
            "encoding": encoding,
            **scale,
        },
    )


SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 2,
    "minishard_bits": 1,
    "shard_bits": 2,
    "hash": "identity",
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}


def in_channels(voxels=VOXELS):
    """Three channels; the second one is the volume."""
    return np.stack([255 - voxels, voxels, voxels // 2])


def ome_zarr_04_channels(path, axes="tczyx"):
    stored = in_channels()[None] if axes[0] == "t" else np.moveaxis(in_channels(), 0, axes.index("c"))
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["multiscales"] = multiscales("0.4", axes) if axes[-3:] == "zyx" else channels_last(axes)
    chunks = tuple({"z": 5, "y": 7, "x": 16}.get(axis, 1) for axis in axes)
    options = {"config": {"write_empty_chunks": True}}
    group.create_array("s0", shape=stored.shape, chunks=chunks, dtype="uint8", **options)[...] = stored


def channels_last(axes):
    """Metadata of an image whose last axis is the channel."""
    image, *_ = multiscales("0.4")
    image["axes"].append({"name": axes[-1], "type": "channel"})
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    scale["scale"].append(1.0)
    translation["translation"].append(0.0)
    return [image]


def n5_channels(path):
    metadata = {
        "dimensions": [*SHAPE[::-1], 3],
        "blockSize": [*CHUNKS[::-1], 1],
        "dataType": "uint8",
        "compression": {"type": "gzip"},
    }
    _by_tensorstore("n5", path, in_channels().T, metadata=metadata)
    add_attributes(path, {"pixelResolution": {"dimensions": SIZE_XYZ, "unit": "nm"}})


def n5_paintera(path):
    n5(path / "data" / "s0", {})
    add_attributes(path / "data", {"multiScale": True, "resolution": SIZE_XYZ, "offset": [0, 0, 0]})
    add_attributes(path, {"painteraData": {"type": "raw"}})


def precomputed_channels(path):
    _by_tensorstore(
        "neuroglancer_precomputed",
        path,
        in_channels().T,
        multiscale_metadata={"type": "image", "data_type": "uint8", "num_channels": 3},
        scale_metadata={
            "key": "8_8_40",
            "size": SHAPE[::-1],
            "chunk_size": CHUNKS[::-1],
            "resolution": SIZE_XYZ,
            "encoding": "raw",
        },
    )


def precomputed_by_cloudvolume(path, compress, offset=(0, 0, 0), encoding="raw", chunk_size=CHUNKS[::-1]):
    from cloudvolume import CloudVolume

    kind = "image" if encoding == "raw" else "segmentation"
    info = CloudVolume.create_new_info(1, kind, "uint8", encoding, SIZE_XYZ, offset, SHAPE[::-1], chunk_size)
    volume = CloudVolume(f"file://{path}", info=info, compress=compress, progress=False)
    volume.commit_info()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        volume[:, :, :] = VOXELS.T[..., None].copy(order="F")


def tiff_imagej(path, **options):
    metadata = {"axes": "ZYX", "spacing": 0.04, "unit": "um"}
    tifffile.imwrite(path, VOXELS, imagej=True, resolution=(1 / 0.0043,) * 2, metadata=metadata, **options)


def tiff_ome(path, **options):
    size = {f"PhysicalSize{a}": float(s / 1000) for a, s in zip("ZYX", SIZE_NM, strict=True)}
    tifffile.imwrite(path, VOXELS, ome=True, metadata={"axes": "ZYX", **size}, **options)


def tiff_plain(path, **options):
    tifffile.imwrite(path, VOXELS, photometric="minisblack", metadata=None, **options)


def tiff_folder(path):
    path.mkdir()
    for z, section in enumerate(VOXELS):
        tifffile.imwrite(path / f"section_{z + 95}.tif", section, compression="zlib")


def mrc(path, voxels=None, order="<", extended=b""):
    """By mrcfile; by its own hand in the other order of bytes, and with an extended header."""
    voxels = VOXELS.astype(np.uint16) if voxels is None else voxels
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")
        file.set_data(voxels)
        file.voxel_size = tuple(float(s * 10) for s in SIZE_NM[::-1])
        file.update_header_stats()
        header = file.header.copy()
    if order == ">" or extended:
        header = np.array(header)
        header["nsymbt"] = len(extended)
        swapped = header.astype(header.dtype.newbyteorder(order))
        path.write_bytes(
            swapped.tobytes() + extended + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()
        )
    return path


def mrc_imod(path):
    """Unsigned bytes, as IMOD writes them."""
    data = bytearray(mrc(path, VOXELS.view(np.int8)).read_bytes())
    data[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    path.write_bytes(data)


def hdf5_cremi(path):
    """Raw and labels as CREMI has them."""
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("volumes/raw", data=VOXELS, chunks=CHUNKS, compression="gzip")
        raw.attrs["resolution"] = [float(s) for s in SIZE_NM]
        ids = (VOXELS > 9).astype(np.uint64)
        file.create_dataset("volumes/labels/neuron_ids", data=ids, chunks=CHUNKS, compression="gzip")
        file.create_dataset("annotations/locations", data=np.zeros((5, 3)))


SECOND = {"channel": 1}
GIVEN = {"voxel_size_nm": (40, 4.3, 4.3)}

FORMATS = [
    Stored("ome-zarr-0.4", ome_zarr_04),
    Stored("ome-zarr-0.4-tczyx", lambda path: ome_zarr_04(path, axes="tczyx")),
    Stored("ome-zarr-0.4-micrometer", lambda path: ome_zarr_04(path, unit="micrometer", nm=1000)),
    Stored("ome-zarr-0.4-angstrom", lambda path: ome_zarr_04(path, unit="angstrom", nm=Fraction(1, 10))),
    Stored("ome-zarr-0.4-level", ome_zarr_04, inside="s0"),
    Stored("ome-zarr-0.4-channels", ome_zarr_04_channels, SECOND),
    Stored("ome-zarr-0.4-czyx", lambda path: ome_zarr_04_channels(path, "czyx"), SECOND),
    Stored("ome-zarr-0.4-zyxc", lambda path: ome_zarr_04_channels(path, "zyxc"), SECOND),
    Stored("ome-zarr-0.5", ome_zarr_05),
    Stored("ome-zarr-0.5-level", ome_zarr_05, inside="s0"),
    Stored("ome-zarr-0.5-sharded", lambda path: ome_zarr_05(path, shards=(10, 14, 48))),
    Stored("ome-zarr-0.5-tensorstore", ome_zarr_05_by_tensorstore),
    Stored("zarr-v2-fortran", lambda path: bare_zarr(path, zarr_format=2, order="F"), GIVEN),
    Stored("zarr-v3", bare_zarr, GIVEN),
    Stored("n5-cosem", n5_cosem),
    Stored("n5-cosem-array", n5_cosem, inside="s0"),
    Stored("n5-viewer", n5_viewer),
    Stored("n5-viewer-level", n5_viewer, inside="s0"),
    Stored("n5-paintera", n5_paintera, GIVEN),
    Stored("n5-channels", n5_channels, SECOND),
    Stored("n5-bigdataviewer", n5_bigdataviewer, GIVEN, inside="setup0"),
    Stored("n5-plain", lambda path: n5(path, {}, **BLOSC), GIVEN),
    Stored("precomputed-raw", precomputed),
    Stored("precomputed-png", lambda path: precomputed(path, "png")),
    Stored("precomputed-channels", precomputed_channels, SECOND),
    Stored(
        "precomputed-compresso",
        lambda path: precomputed_by_cloudvolume(path, compress=False, encoding="compresso"),
    ),
    Stored("precomputed-sharded", lambda path: precomputed(path, sharding=SHARDING)),
    Stored("precomputed-cloudvolume", lambda path: precomputed_by_cloudvolume(path, compress=False)),
    Stored("precomputed-cloudvolume-gz", lambda path: precomputed_by_cloudvolume(path, compress="gzip")),
    Stored("tiff-imagej", tiff_imagej),
    Stored("tiff-ome-deflate", lambda path: tiff_ome(path, compression="zlib", predictor=True)),
    Stored("tiff-big-tiled", lambda path: tiff_plain(path, bigtiff=True, tile=(16, 16)), GIVEN),
    Stored("tiff-folder", tiff_folder, GIVEN),
    Stored("mrc-imod", mrc_imod),
    Stored("hdf5-cremi", hdf5_cremi),
]


def chunk_files(path):
    """The files that hold voxels."""
    metadata = {"zarr.json", ".zarray", ".zattrs", ".zgroup", "attributes.json", "info", "provenance"}
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name not in metadata)


def copied(path, to):
    """A copy that a test may damage."""
    return shutil.copytree(path, to) if path.is_dir() else shutil.copy(path, to)


def _by_tensorstore(driver, path, values, **metadata):
    kvstore = {"driver": "file", "path": f"{path}/"}
    spec = {"driver": driver, "kvstore": kvstore, "store_data_equal_to_fill_value": True, **metadata}
    array = ts.open(spec, create=True).result()
    array[ts.d[:].translate_to[0]].write(values).result()
