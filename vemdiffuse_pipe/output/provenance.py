"""What was filled, written down plane by plane: provenance, from the receipts. One writer, when work ends."""

from __future__ import annotations

import numpy as np

from vemdiffuse_pipe.plan.plan import Plan, digest
from vemdiffuse_pipe.records.receipts import read_receipts
from vemdiffuse_pipe.storage import open_sink, parse_address


def write_filled_provenance(plan: Plan) -> None:
    """Bring the provenance of the plan's output to what its receipts say.

    Raises OutputError, StorageFullError or TransientError.
    """
    table = plan.run_file.source
    if "fill" not in (table.missing, table.corrupt):
        return
    output = plan.run_file.output.url
    receipts = read_receipts(parse_address(output), digest(plan.identity()))
    filled = sorted({section for _, receipt in receipts for section in receipt.filled_sections})
    codes = plan.provenance(filled)
    sink = open_sink(output)
    if not np.array_equal(codes, sink.provenance):
        sink.write_provenance(codes)
