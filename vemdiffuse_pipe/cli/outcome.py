"""How a run ended, as people and as machines read it."""

from __future__ import annotations

import click

from vemdiffuse_pipe.cli.format import show_count
from vemdiffuse_pipe.cli.options import print_json
from vemdiffuse_pipe.records.events import FailedBlock, Outcome

MAX_LISTED = 20


def print_outcome(output: str, outcome: Outcome, *, as_json: bool) -> int:
    """Print the outcome and return the exit code: 0 complete or drained, 1 not, 130 interrupted."""
    if as_json:
        print_json({"output": output, **outcome_facts(outcome)})
    else:
        click.echo(format_text(output, outcome))
    if outcome.drained:
        done = f"{show_count(outcome.n_done)} of {show_count(outcome.n_blocks)} blocks are done"
        click.echo(f"vemdiffuse: {done}; {outcome.stopped}", err=True)
        return outcome.exit_code
    return 130 if outcome.interrupted else outcome.exit_code


def outcome_facts(outcome: Outcome) -> dict[str, object]:
    """The outcome for machines."""
    return {
        "n_blocks": outcome.n_blocks,
        "n_done": outcome.n_done,
        "n_rendered": outcome.n_rendered,
        "n_skipped": outcome.n_skipped,
        "failed_blocks": [failed_block_facts(block) for block in outcome.failed_blocks],
        "stopped": outcome.stopped or None,
        "drained": outcome.drained,
    }


def failed_block_facts(block: FailedBlock) -> dict[str, object]:
    """A block that failed, for machines; its box is in voxels of the output, zyx."""
    return {
        "block_index": block.block_index,
        "start": block.output_box.start,
        "stop": block.output_box.stop,
        "reason": block.reason,
        "n_attempts": block.n_attempts,
    }


def format_text(output: str, outcome: Outcome) -> str:
    """The outcome for people."""
    n = show_count(outcome.n_blocks)
    outside = f"{show_count(outcome.n_skipped)} outside the mask, " if outcome.n_skipped else ""
    if outcome.is_complete:
        return (
            f"{output} is complete: {show_count(outcome.n_done)} of {n} blocks are done, "
            f"{outside}{show_count(outcome.n_rendered)} rendered now"
        )
    lines = [f"{output} is not complete: {show_count(outcome.n_done)} of {n} blocks are done"]
    if outcome.stopped:
        lines.append(outcome.stopped)
    if outcome.failed_blocks:
        lines += [*listed(outcome.failed_blocks), f"`vemdiffuse retry {output}` retries these blocks"]
    return "\n".join(lines)


def listed(blocks: tuple[FailedBlock, ...]) -> list[str]:
    """A line for each block that failed, for the first twenty."""
    lines = [
        f"block {b.block_index} {b.output_box} failed after {b.n_attempts} attempts: {b.reason}"
        for b in blocks[:MAX_LISTED]
    ]
    more = len(blocks) - MAX_LISTED
    return [*lines, f"and {show_count(more)} more; --json lists them all"] if more > 0 else lines
