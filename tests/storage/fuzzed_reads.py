"""Reads a volume again and again, a little changed: python fuzzed_reads.py FOLDER INSIDE OPTIONS WHAT N

WHAT: `documents`, the JSON beside the voxels, or `chunks`, the objects that hold them. Says how many times it
was refused, and the most memory in bytes that this process had. Anything but a VemdiffuseError ends it.
"""

import json
import random
import resource
import sys
from pathlib import Path

from stored_volumes import chunk_files
from test_hostile_metadata import HOSTILE, changed, places

from vemdiffuse_pipe.errors import VemdiffuseError
from vemdiffuse_pipe.storage import open_source

EXTREMES = [b"\0" * 4, b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x80" + b"\0" * 3, b"\xff" * 8, b"\0" * 16]


def hostile_document(data, rng):
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not isinstance(document, dict | list):
            break
        document = changed(document, rng.choice(list(places(document))), rng.choice(HOSTILE))
    return json.dumps(document).encode()


def hostile_chunk(data, rng):
    """The chunk, overwritten at its head, at its end (a shard's index) or anywhere; cut, or longer."""
    changed_data = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        low, high = rng.choice(((0, 32), (len(data) - 300, len(data)), (0, len(data))))
        at = min(max(0, rng.randrange(low, max(high, low + 1))), len(data))
        new = rng.choice([*EXTREMES, rng.randbytes(1), rng.randbytes(4)])
        changed_data[at : at + len(new)] = new
    if rng.random() < 0.2:
        del changed_data[rng.randrange(len(changed_data)) :]
    return bytes(changed_data)


def main(folder, inside, options, what, n):
    rng = random.Random(7)
    documents = [file for file in folder.rglob("*") if file.is_file() and file not in chunk_files(folder)]
    files = documents if what == "documents" else chunk_files(folder)
    change = hostile_document if what == "documents" else hostile_chunk
    n_refused = n_read = 0
    for _ in range(n):
        file = rng.choice(sorted(files))
        data = file.read_bytes()
        file.write_bytes(change(data, rng))
        try:
            source = open_source(folder / inside, **options)
            if what == "documents":  # the volume may be said to be very large
                stop = tuple(min(40, side) for side in source.spec.shape)
            else:
                stop = source.spec.shape
            source.read(type(source.spec.frame.box)((0, 0, 0), stop))
        except VemdiffuseError as error:
            n_refused += 10 < len(str(error)) < 2000 and "\n" not in str(error)
        else:
            n_read += 1
        file.write_bytes(data)
    status = Path("/proc/self/status").read_text()
    peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    child_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak_bytes = 1024 * max(peak_kb, child_kb)
    sys.stdout.write(json.dumps({"refused": n_refused, "read": n_read, "peak_bytes": peak_bytes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
