"""What a run does: receipts, the dask graph, the driver, events. The only place that knows dask."""
