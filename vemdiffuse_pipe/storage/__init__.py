"""Volumes where they are hosted: sources to read, the sink to write, and small objects beside them."""

from vemdiffuse_pipe.storage.address import Address, parse_address
from vemdiffuse_pipe.storage.catalogue import source_address
from vemdiffuse_pipe.storage.sink import StoredSink, create_sink, open_sink
from vemdiffuse_pipe.storage.source import open_mask, open_source

__all__ = [
    "Address",
    "StoredSink",
    "create_sink",
    "open_mask",
    "open_sink",
    "open_source",
    "parse_address",
    "source_address",
]
