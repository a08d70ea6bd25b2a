"""How each reader opens an output: a few lines of Python, which handoff.json carries. OUTPUT is its address.

Each defines `voxels`: what the reader gives of level 0 of em, z y x last. All are run by a test where the
program can be installed; the others are said to be untested.
"""

from __future__ import annotations

SNIPPETS = {
    "vemdiffuse_pipe": """from vemdiffuse_pipe import open_source
source = open_source("OUTPUT")  # voxel_size_nm=(20, 20, 20) chooses a level
voxels = source.read(source.spec.frame.box)""",
    "zarr-python": """import zarr
voxels = zarr.open_array("OUTPUT/em/0", mode="r")""",
    "tensorstore": """import tensorstore
store = {"driver": "zarr3", "kvstore": "file://OUTPUT/em/0/"}
voxels = tensorstore.open(store).result()""",
    "ome-zarr": """from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
image = next(iter(Reader(parse_url("OUTPUT"))()))
voxels = image.data[0]""",
    "ngff-zarr": """import ngff_zarr
images = ngff_zarr.from_ngff_zarr("OUTPUT", validate=True).images
voxels = images[0].data""",
    "bioio": """from bioio import BioImage
image = BioImage("OUTPUT")  # the name must end in .zarr
voxels = image.get_image_data("ZYX")""",
    "cloud-volume": """# vemdiffuse export OUTPUT EXPORTED --format precomputed
from cloudvolume import CloudVolume
volume = CloudVolume("precomputed://file://EXPORTED", mip=0)
voxels = volume[:, :, :][..., 0].T""",
    "napari": """import napari
from vemdiffuse_pipe.handoff.napari import read_layers
viewer = napari.Viewer()
for data, attributes, kind in read_layers("OUTPUT"):  # with scale and translate in nm
    getattr(viewer, f"add_{kind}")(data, **attributes)""",
    "neuroglancer": """# vemdiffuse view OUTPUT
# A layer of your own page: zarr3://https://HOST/OUTPUT/em""",
    "funlib.persistence": """from pathlib import Path
from funlib.persistence.arrays.datasets import open_ome_ds  # open_ds takes voxels for 1 nm: do not use it
voxels = open_ome_ds(Path("OUTPUT/em"), name="0")""",
    "ilastik": """# vemdiffuse export OUTPUT EXPORTED.zarr --format ome-zarr-0.4
# In ilastik: the dataset EXPORTED.zarr/0""",
    "MoBIE": """# vemdiffuse export OUTPUT EXPORTED.zarr --format ome-zarr-0.4
# In Fiji: Plugins > MoBIE > Open OME-Zarr: EXPORTED.zarr""",
}
UNTESTED = ("napari", "funlib.persistence", "ilastik", "MoBIE")
