"""How a run ended, as people and as machines read it."""

from __future__ import annotations

import click

from vemdiffuse_pipe.cli.options import print_json
from vemdiffuse_pipe.cli.words import show_count
from vemdiffuse_pipe.records.events import Outcome, SetAside

MOST_LISTED = 20


def print_outcome(output: str, outcome: Outcome, *, as_json: bool) -> int:
    """Print the outcome and return the exit code: 0 complete or making way, 1 not, 130 where
    somebody interrupted it.
    """
    if as_json:
        print_json({"output": output, **outcome_facts(outcome)})
    else:
        click.echo(in_words(output, outcome))
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
        "set_aside": [set_aside_facts(block) for block in outcome.set_aside],
        "stopped": outcome.stopped or None,
        "drained": outcome.drained,
    }


def set_aside_facts(block: SetAside) -> dict[str, object]:
    """A block that was set aside, for machines; its box is in voxels of the output, zyx."""
    return {
        "block_index": block.block_index,
        "start": block.output_box.start,
        "stop": block.output_box.stop,
        "reason": block.reason,
        "n_attempts": block.n_attempts,
    }


def in_words(output: str, outcome: Outcome) -> str:
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
    if outcome.set_aside:
        lines += [*listed(outcome.set_aside), f"`vemdiffuse retry {output}` takes these blocks up again"]
    return "\n".join(lines)


def listed(blocks: tuple[SetAside, ...]) -> list[str]:
    """A line for each block that was set aside, for the first twenty."""
    lines = [
        f"block {b.block_index} {b.output_box} is set aside after {b.n_attempts} attempts: {b.reason}"
        for b in blocks[:MOST_LISTED]
    ]
    more = len(blocks) - MOST_LISTED
    return [*lines, f"and {show_count(more)} more; --json lists them all"] if more > 0 else lines
