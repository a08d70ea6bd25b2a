"""vemdiffuse inspect: what a volume is, from its metadata; and, when asked for, a look at its voxels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from vemdiffuse_pipe.cli.format import show_bytes, show_count, show_ratio, show_shape
from vemdiffuse_pipe.cli.options import SourceChoice, json_option, print_json, print_table, source_options
from vemdiffuse_pipe.cli.outcome import MAX_LISTED
from vemdiffuse_pipe.geometry.frame import show_nm
from vemdiffuse_pipe.storage.section_names import Numbering
from vemdiffuse_pipe.survey.alignment import Alignment, PairShift
from vemdiffuse_pipe.survey.inspection import Inspection, LevelInfo, SectionScan, inspect
from vemdiffuse_pipe.survey.peek import Peek

Facts = dict[str, object]

SLOW = ("zarr-python", "numcodecs", "imagecodecs", "compresso")
SLOWER = "a chunk at a time in Python, slower than tensorstore; copy it to zarr for repeated runs"


@click.command("inspect")
@click.argument("url")
@source_options
@click.option("--peek", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw two views of it.")
@click.option("--sections", is_flag=True, help="Look for bad sections, and measure their alignment.")
@json_option
def command(
    url: str,
    choice: SourceChoice,
    peek: Path | None,
    sections: bool,
    as_json: bool,
) -> None:
    """Print what a volume is: format, levels, shape, voxel size.

    URL may be a name that `vemdiffuse datasets` lists. Chunks are decoded whole, so a line for each level
    says what one read decodes. --peek draws the middle section and an xz cut, from the coarsest level that
    still has 512 pixels. --sections reads a coarse level through for black, constant, duplicated and missing
    sections, prints a line for the run file, and measures how far neighbouring sections lie off each other.

    \b
    Examples:
      vemdiffuse inspect stack.tif
      vemdiffuse inspect isotropic.zarr/em --json
      vemdiffuse inspect stack.tif --voxel-size 50 4.6 4.6 --peek stack.png
      vemdiffuse inspect stack.tif --sections
    """
    volume = inspect(url, **choice, peek=peek, sections=sections)
    if as_json:
        print_json(inspection_facts(volume))
    else:
        print_table(inspection_rows(volume))


def inspection_facts(volume: Inspection) -> Facts:
    """The inspection for machines."""
    facts: Facts = {"url": volume.url, "format": volume.format, "levels": [_level(v) for v in volume.levels]}
    if volume.numbering is not None:
        facts["files"] = _numbering(volume.numbering)
    if volume.absent_levels:
        facts["absent_levels"] = volume.absent_levels
    if volume.peek is not None:
        facts["peek"] = _peek(volume.peek)
    if volume.sections is not None:
        scan = volume.sections
        bad = [asdict(section) for section in scan.bad]
        facts["sections"] = {"level": scan.level, "bad": bad, "rejected_sections": scan.rejected_sections}
    if volume.alignment is not None:
        facts["alignment"] = volume.alignment.as_dict()
    return facts


def inspection_rows(volume: Inspection) -> dict[str, str]:
    """The inspection for people, as rows of a table."""
    rows = {volume.format: volume.url} | {f"level {v.name}": _level_text(v) for v in volume.levels}
    if volume.numbering is not None:
        rows["files"] = str(volume.numbering)
    rows |= {f"level {name}": "declared by the metadata, not there" for name in volume.absent_levels}
    if volume.peek is not None:
        rows["peek"] = _peek_text(volume.peek)
    if volume.sections is not None:
        rows["sections"] = _sections_text(volume.sections)
    if volume.alignment is not None:
        rows["alignment"] = _alignment_text(volume.alignment)
    return rows


def _numbering(numbering: Numbering) -> Facts:
    first, last = numbering.first, numbering.last
    return {
        "first": None if first is None else float(first),
        "last": None if last is None else float(last),
        "step": float(numbering.step),
        "count": numbering.n_files,
        "absent": len(numbering.files) - numbering.n_files,
    }


def _level(level: LevelInfo) -> Facts:
    size, corner = level.voxel_size_nm, level.corner_nm
    return {
        "name": level.name,
        "shape": level.shape,
        "dtype": level.dtype,
        "bytes": level.n_bytes,
        "voxel_size_nm": None if size is None else [float(v) for v in size],
        "corner_nm": None if corner is None else [float(v) for v in corner],
        "chunk_shape": level.chunk_shape,
        "shard_shape": level.shard_shape,
        "codec": level.codec,
        "read_by": level.read_by,
        "one_read": {
            "shape": level.read_shape,
            "touched_shape": level.touched_shape,
            "touched_bytes": level.touched_bytes,
        },
    }


def _level_text(level: LevelInfo) -> str:
    size = ", no voxel size in the metadata: give --voxel-size Z Y X"
    if level.voxel_size_nm is not None:
        size = f" of {show_nm(level.voxel_size_nm)} nm: {show_ratio(level.voxel_size_nm)}"
    has_shards = level.shard_shape != level.chunk_shape
    shards = f", shards of {show_shape(level.shard_shape)}" if has_shards else ""
    slower = f"\nread by {level.read_by}: {SLOWER}" if level.read_by in SLOW else ""
    return (
        f"{show_shape(level.shape)} voxels{size}\n"
        f"{level.dtype}, {show_bytes(level.n_bytes)}, {level.codec}, "
        f"chunks of {show_shape(level.chunk_shape)}{shards}\n"
        f"a read of {show_shape(level.read_shape)} decodes {show_shape(level.touched_shape)}: "
        f"{show_bytes(level.touched_bytes)}{slower}"
    )


def _peek(peek: Peek) -> Facts:
    return {
        "file": str(peek.file),
        "level": peek.level,
        "decoded_bytes": peek.decoded_bytes,
        "section": {"start": peek.section.start, "stop": peek.section.stop},
        "cut": {"start": peek.cut.start, "stop": peek.cut.stop},
    }


def _peek_text(peek: Peek) -> str:
    return (
        f"{peek.file}: section {peek.section} and cut {peek.cut} of level {peek.level}, "
        f"{show_bytes(peek.decoded_bytes)} decoded"
    )


def _sections_text(scan: SectionScan) -> str:
    lines = [f"{len(scan.bad)} of {show_count(scan.n_sections)} are bad, by level {scan.level}"]
    lines += [
        f"section {b.section}: {b.reason}{'' if b.of is None else f' of {b.of}'}"
        for b in scan.bad[:MAX_LISTED]
    ]
    if len(scan.bad) > MAX_LISTED:
        lines.append(f"and {show_count(len(scan.bad) - MAX_LISTED)} more; --json lists them all")
    rejected = scan.rejected_sections
    return "\n".join(lines + ([f"rejected_sections = {rejected}"] if rejected else []))


def _alignment_text(found: Alignment) -> str:
    measured, pairs = show_count(len(found.pairs)), show_count(found.n_pairs)
    lines = [
        f"{found.verdict}; shifts: {found.typical_px:.1f} px (median), {measured} of {pairs} pairs measured"
    ]
    bad = sorted([*found.jumps, *found.unclear], key=lambda pair: pair.lower)
    lines += [_pair_text(pair) for pair in bad[:MAX_LISTED]]
    if len(bad) > MAX_LISTED:
        lines.append(f"and {show_count(len(bad) - MAX_LISTED)} more; --json lists them all")
    return "\n".join(lines)


def _pair_text(pair: PairShift) -> str:
    where = f"sections {pair.lower} and {pair.lower + 1}"
    if pair.shift_px is None:
        return f"{where}: no common shift, places differ by {pair.spread_px:.0f} px"
    y, x = pair.shift_px
    return f"{where}: a jump of {pair.length_px:.1f} px, {y:+.1f} along y and {x:+.1f} along x"
