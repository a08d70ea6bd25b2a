"""What was filled, written down plane by plane: provenance, from the receipts. Written when work ends."""

from __future__ import annotations

import numpy as np

from vemdiffuse_pipe.output.run_output import RunOutput
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.records.receipts import read_receipts


def write_filled_provenance(output: RunOutput, plan: Plan) -> None:
    """Bring the provenance of `output`, which `plan` fills, to what its receipts say.

    Raises OutputError, StorageFullError or TransientError.
    """
    table = plan.run_file.source
    if "fill" not in (table.missing, table.corrupt):
        return
    receipts = read_receipts(output.records, output.digest)
    filled = sorted({section for _, receipt in receipts for section in receipt.filled_sections})
    codes = plan.provenance(filled)
    if not np.array_equal(codes, output.sink.provenance):
        output.sink.write_provenance(codes)
