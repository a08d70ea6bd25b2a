"""A run by workers that are other processes: the dask graph, the driver, the worker."""
