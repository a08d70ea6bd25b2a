"""Machines and jobs: how workers are had, what a job is given, when it must leave. Knows dask."""
