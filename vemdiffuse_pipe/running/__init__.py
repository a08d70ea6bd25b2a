"""What a run does: plan, blocks and their stages, the dask graph, the driver, parts; how it is seen."""
