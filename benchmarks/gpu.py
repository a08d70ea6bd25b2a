"""What benchmarks/gpu.sh does in Python: pack a crop of data; measure rendering and a whole run on a device.

    python gpu.py pack FOLDER [--source URL]                 data.npz in FOLDER
    python gpu.py measure FOLDER RESULTS [--seconds 200]     gpu.json and gpu.md in RESULTS

Cases are measured in the order of what they decide; those that time does not reach are said to be missing.
Of rendering the last of three counts: kernels are chosen, and networks captured, in those before. Needs torch
and what the pack holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from vemdiffuse_pipe import config
from vemdiffuse_pipe.geometry.box import Box
from vemdiffuse_pipe.geometry.frame import Frame, exact_nm
from vemdiffuse_pipe.models.capture import capture_state
from vemdiffuse_pipe.models.card import find_card
from vemdiffuse_pipe.output.preparation import open_run_model
from vemdiffuse_pipe.plan.estimate import estimate
from vemdiffuse_pipe.plan.plan import Plan, make_plan
from vemdiffuse_pipe.render.block import Hardware, RenderCounts, render_block
from vemdiffuse_pipe.volume import VolumeSpec, Voxels

R = 5
SECTIONS, CROP_PX = 9, 640  # of the crop: 3.7 MB, which larger planes mirror
DEVICE = os.environ.get("VEMDIFFUSE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
IS_GPU = DEVICE.startswith("cuda")
SIDE, SMALL_SIDE = (2048, 1024) if IS_GPU else (96, 64)
CORES = (1024, 2048, 512, 256) if IS_GPU else (48, 96, 24)


@dataclass(frozen=True)
class Case:
    """A way to render: which answer, how the plane is cut, how the network is called, in what arithmetic."""

    answer: str
    core_px: int
    capture: str
    precision: str

    @property
    def model(self) -> dict[str, object]:
        """The [model] table."""
        table: dict[str, object] = {"ratio": R, "core_px": self.core_px, "precision": self.precision}
        if self.answer != "best estimate":
            table |= {"samples": 2 if self.answer == "a pair" else 1, "steps": None if IS_GPU else 1}
        return {key: value for key, value in table.items() if value is not None}


def cases() -> Iterator[Case]:
    """In the order of what they decide: capturing, size of cores, arithmetic."""
    answers = ("best estimate", "a pair", "one sample")
    for capture in ("off", "graphs", "compile") if IS_GPU else ("off",):
        for answer in answers[:2]:
            yield Case(answer, CORES[0], capture, "bfloat16")
    for core_px in CORES[1:]:
        for answer in answers[:2]:
            yield Case(answer, core_px, "off", "bfloat16")
    yield Case(answers[2], CORES[0], "off", "bfloat16")
    yield Case(answers[0], CORES[0], "off", "float32")


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing, measuring = commands.add_parser("pack"), commands.add_parser("measure")
    for command in (packing, measuring):
        command.add_argument("folder", type=Path)
    packing.add_argument("--source", default="")
    measuring.add_argument("results", type=Path)
    measuring.add_argument("--seconds", type=float, default=200.0)
    options = parser.parse_args()
    if options.command == "pack":
        np.savez_compressed(options.folder / "data.npz", sections=crop(options.source))
    else:
        measure(options.folder, options.results, options.seconds)


def crop(source: str) -> Voxels:
    """Sections from the middle of a volume, uint8, at most (9, 640, 640); else synthetic ones."""
    if not source:
        from vemdiffuse_pipe.phantom import phantom

        return phantom((SECTIONS, CROP_PX, CROP_PX), seed=0)
    from vemdiffuse_pipe.storage import open_source

    opened = open_source(source, voxel_size_nm=(10.0, 10.0, 10.0))  # speed does not depend on it
    spans = [
        (n // 2 - min(n, m) // 2, min(n, m))
        for n, m in zip(opened.spec.shape, (SECTIONS, CROP_PX, CROP_PX), strict=True)
    ]
    (z, nz), (y, ny), (x, nx) = spans
    return opened.read(Box.of_shape((nz, ny, nx), (z, y, x)))


def measure(folder: Path, results: Path, seconds: float) -> None:
    """All figures, kept as they come."""
    ends = time.monotonic() + seconds
    sections = np.load(folder / "data.npz")["sections"]
    found: dict[str, object] = {**about(folder), "tests": tests(results / "tests.xml")}
    rows: list[dict[str, object]] = []
    runs: list[dict[str, object]] = []
    for answer in ("best estimate", "a pair"):
        runs.append(whole_run(answer, sections, results))
        keep(results, found | {"runs": runs, "cases": rows})
    for case in cases():
        if time.monotonic() > ends:
            rows.append(asdict(case) | {"missing": "no time was left"})
            continue
        try:
            rows.append(asdict(case) | rendered(case, mirrored(sections[:4], SIDE)))
        except Exception as error:  # one case that fails leaves the others
            rows.append(asdict(case) | {"missing": f"{type(error).__name__}: {str(error)[:200]}"})
        keep(results, found | {"runs": runs, "cases": rows})
    keep(results, found | {"runs": runs, "cases": rows})


def rendered(case: Case, sections: Voxels) -> dict[str, object]:
    """Voxels and operations a second of one block, and what memory it took."""
    plan = plan_of(case, sections)
    model, hardware = open_run_model(plan), Hardware(DEVICE)
    times = []
    for _ in range(3):
        counts, started = RenderCounts(), time.perf_counter()
        if IS_GPU:
            torch.cuda.reset_peak_memory_stats()
        render_block(plan, model, sections, plan.output.box, hardware, counts=counts)
        times.append(time.perf_counter() - started)
    figures, spent = estimate(plan), times[-1]
    generated = np.count_nonzero(plan.provenance() > 1) * SIDE**2
    return {
        "seconds": times,
        "voxels_per_s": figures.output_voxels / spent,
        "flop_per_s": figures.flop / spent,
        "flop_per_voxel": figures.flop_per_voxel,
        "renders_per_voxel": counts.n_voxels / (plan.sampling.samples + plan.card.has_estimate) / generated,
        "tile_batch": counts.tile_batch,
        "capture_state": capture_state(model),
        "peak_bytes": torch.cuda.max_memory_allocated() if IS_GPU else 0,
        "planned_bytes": figures.gpu_bytes,
    }


def plan_of(case: Case, sections: Voxels) -> Plan:
    """The plan of sections in memory."""
    run_file = config.parse(
        {
            "source": {"url": "memory", "contrast": contrast(sections)},
            "output": {"url": "memory"},
            "model": case.model,
            "run": {"device": DEVICE, "capture": case.capture},
        }
    )
    z, y, x = sections.shape
    spec = VolumeSpec(
        "memory", "array", Frame((z, y, x), exact_nm([R, 1, 1])), "uint8", (1, 64, 64), (1, 64, 64)
    )
    return make_plan(run_file, spec, find_card(run_file.model.name))


def whole_run(answer: str, sections: Voxels, results: Path) -> dict[str, object]:
    """A run from one store to another, with its receipts: how long, and how busy the GPU was."""
    from vemdiffuse_pipe.output.run_output import open_run_output
    from vemdiffuse_pipe.records.parts import Part
    from vemdiffuse_pipe.records.receipts import read_receipts
    from vemdiffuse_pipe.running.reconstruct import run

    name = answer.replace(" ", "_")
    output = results / f"{name}.zarr"
    source = stored(mirrored(sections[: 9 if IS_GPU else 3], SIDE), results / f"{name}_source.zarr")
    side = SMALL_SIDE if IS_GPU else SIDE // 2
    shard = [20, side // 2, side // 2]
    case = Case(answer, CORES[0], "off", "bfloat16")
    run_file = config.parse(
        {
            "source": {"url": source, "contrast": contrast(sections)},
            "output": {"url": str(output), "chunk_shape": [20, side // 4, side // 4], "shard_shape": shard},
            "model": case.model,
            "run": {"device": DEVICE, "block_shape": [20, side, side], "capture": "off"},
        }
    )
    with busy() as shares:
        started = time.perf_counter()
        outcome = run(run_file, part=Part(1, 1))
        spent = time.perf_counter() - started
    made = open_run_output(output)
    receipts = [receipt for _, receipt in read_receipts(made.records, made.digest)]
    (results / f"{name}_receipts.json").write_text(json.dumps([r.as_record() for r in receipts], indent=1))
    n_voxels = sum(receipt.output_box.n_voxels for receipt in receipts)
    return {
        "answer": answer,
        "exit_code": outcome.exit_code,
        "n_blocks": outcome.n_done,
        "seconds": spent,
        "voxels_per_s": n_voxels / spent,
        "render_share": sum(r.seconds["render"] for r in receipts) / spent,
        "busy_share": mean(shares) if shares else None,
        "peak_gpu_bytes": max((r.peak_gpu_bytes for r in receipts), default=0),
    }


def stored(sections: Voxels, folder: Path) -> str:
    """Write sections as OME-Zarr, 50 x 10 x 10 nm; where their array is."""
    from vemdiffuse_pipe.storage import create_sink

    z, y, x = sections.shape
    sink = create_sink(
        str(folder),
        Frame((z, y, x), exact_nm([50, 10, 10])),
        arrays=("em",),
        chunk_shape=(z, min(y, 256), min(x, 256)),
        shard_shape=(z, y, x),
        attributes={},
        provenance=np.ones(z, np.uint8),
    )
    sink.write("em", Box.of_shape((z, y, x)), sections)
    return str(folder / "em")


@contextmanager
def busy() -> Iterator[list[float]]:
    """Shares of time in which the GPU computed, ten times a second, by nvidia-smi; none without it."""
    shares: list[float] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    try:
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if IS_GPU else None
    except OSError:
        watching = None
    try:
        yield shares
    finally:
        if watching is not None:
            watching.terminate()
            lines = watching.communicate()[0].split()
            shares.extend(float(line) / 100 for line in lines if line.isdigit())


def tests(report: Path) -> dict[str, object]:
    """How many tests passed, failed and were skipped, and what they noted."""
    if not report.exists():
        return {"missing": "no report"}
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    noted = {p.get("name"): p.get("value") for p in suite.iter("property")}
    return {**counts, "failed": failed, "noted": noted}


def about(folder: Path) -> dict[str, object]:
    """Device, date, commit, and the peak that a product of large matrices reaches."""
    name = torch.cuda.get_device_name() if IS_GPU else f"{platform.machine()}, {os.cpu_count()} cores"
    return {
        "device": name,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": (folder / "commit").read_text().strip(),
        "torch": torch.__version__,
        "peak_flop_per_s": matrix_flop_per_s(),
    }


def matrix_flop_per_s() -> float:
    """Operations a second of a bfloat16 matrix product, the best of five."""
    n = 8192 if IS_GPU else 256
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


def mirrored(sections: Voxels, side: int) -> Voxels:
    """Sections of side x side pixels, cut or mirrored."""
    missing = [(0, max(0, side - n)) for n in sections.shape[1:]]
    return np.pad(sections, [(0, 0), *missing], mode="reflect")[:, :side, :side].copy()


def contrast(sections: Voxels) -> list[float]:
    """Mean and deviation."""
    return [float(sections.mean()), float(sections.std())]


def keep(results: Path, found: dict[str, object]) -> None:
    """Write what there is, for machines and for people."""
    (results / "gpu.json").write_text(json.dumps(found, indent=1, default=str))
    (results / "gpu.md").write_text(table(found))


def table(found: dict[str, object]) -> str:
    """The figures as Markdown."""
    peak = float(found["peak_flop_per_s"])  # type: ignore[arg-type]
    lines = [
        f"{found['device']}, torch {found['torch']}, {found['date']}, commit {found['commit']}; "
        f"a bfloat16 matrix product reaches {peak / 1e12:.1f} TFLOP/s; tests: {found['tests']}",
        "",
        "| answer | core, px | captured | precision | Mvoxel/s | TFLOP/s | of the peak | renders per voxel "
        "| tiles at once | memory held, planned, GB |",
        "|" + " --- |" * 10,
    ]
    for row in found["cases"]:  # type: ignore[attr-defined]
        head = f"| {row['answer']} | {row['core_px']} | {row['capture']} | {row['precision']} |"
        if "missing" in row:
            lines.append(f"{head} {row['missing']} |  |  |  |  |  |")
            continue
        state = row["capture_state"] if str(row["capture_state"]).startswith("not") else ""
        lines.append(
            f"{head} {row['voxels_per_s'] / 1e6:.3f} | {row['flop_per_s'] / 1e12:.2f} "
            f"| {row['flop_per_s'] / peak:.1%} | {row['renders_per_voxel']:.2f} | {row['tile_batch']} "
            f"| {row['peak_bytes'] / 1e9:.2f}, {row['planned_bytes'] / 1e9:.2f} {state} |"
        )
    lines += [
        "",
        "| run | blocks | Mvoxel/s | rendering, share of the time | GPU busy | exit code |",
        "|" + " --- |" * 6,
    ]
    for run in found["runs"]:  # type: ignore[attr-defined]
        share = "not measured" if run["busy_share"] is None else f"{run['busy_share']:.1%}"
        lines.append(
            f"| {run['answer']} | {run['n_blocks']} | {run['voxels_per_s'] / 1e6:.3f} "
            f"| {run['render_share']:.1%} | {share} | {run['exit_code']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
