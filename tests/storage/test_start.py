"""Storage starts fast: what reads voxels is imported when voxels are read."""

import subprocess
import sys

HEAVY = ("tensorstore", "zarr", "cloudvolume", "tifffile", "torch", "dask", "scipy", "fsspec")


def test_import_of_storage_imports_nothing_heavy():
    code = f"import sys, vemdiffuse_pipe.storage.source; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
