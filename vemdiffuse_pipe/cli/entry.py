"""Where the command line begins, and where every failure becomes one sentence and an exit code.

Exit codes: 0 done; 1 failed midway, or blocks failed; 2 cannot be used, nothing was started; 130
interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from signal import Signals
from typing import NoReturn

import click

from vemdiffuse_pipe.cluster import signals
from vemdiffuse_pipe.errors import InputError, VemdiffuseError

GROUPS = {
    "Look": {
        "demo": "Run the full pipeline on a synthetic volume.",
        "inspect": "Print what a volume is: format, levels, shape, voxel size.",
        "datasets": "List public volumes that are opened by name.",
        "models": "List models; show, import or export one.",
    },
    "Run": {
        "reconstruct": "Make a volume isotropic, without writing a run file first.",
        "init": "Print a run file for a volume, with comments.",
        "plan": "Print what a run would do and need; nothing is computed.",
        "run": "Carry out a run file; rerun to resume.",
        "submit": "Submit a run to a batch scheduler, as a job array.",
    },
    "Watch": {
        "status": "Print how far a run is, while it runs or after.",
        "events": "Print what happened in a run, in order of time.",
        "verify": "Check every stored voxel of an output, and render some again.",
        "retry": "Retry the blocks of an output that failed.",
    },
    "Train": {
        "train": "Train a network on your own volume; rerun to resume.",
        "adapt": "Adapt the default model to your own sections; rerun to resume.",
        "register": "Register a raw image to its clean counterpart.",
    },
    "Judge": {
        "selftest": "Leave sections out and say which model makes them best.",
        "evaluate": "Compare a reconstruction with ground truth.",
        "compare": "Benchmark models against ground truth.",
    },
    "Hand over": {
        "view": "Show an output in a viewer, or draw a picture of it.",
        "pyramid": "Make coarser levels of an output.",
        "export": "Copy an output into the format of another program.",
        "schema": "Print the JSON schema of handoff.json.",
    },
}
COMMANDS = {name: line for commands in GROUPS.values() for name, line in commands.items()}

MAX_NAME = max(map(len, COMMANDS))  # so that the second column is one column across the groups

_RUNS = ("run", "reconstruct", "retry", "pyramid", "export")
_WITHOUT_STORES = ("demo", "datasets", "models", "schema")


def _use_endpoint(context: click.Context, option: click.Parameter, url: str | None) -> None:
    """From here on every s3:// address is at this endpoint; what is stored names it in full."""
    if url is None:
        return
    from vemdiffuse_pipe.storage.address import check_endpoint

    check_endpoint(url)
    os.environ["AWS_ENDPOINT_URL"] = url


ENDPOINT = click.Option(
    ["--endpoint-url"],
    metavar="URL",
    expose_value=False,
    is_eager=True,
    callback=_use_endpoint,
    help="Of an S3-compatible store, for s3:// addresses; else AWS_ENDPOINT_URL, or AWS.",
)


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is used, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, from the module of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"vemdiffuse_pipe.cli.{cmd_name}").command
        if cmd_name not in _WITHOUT_STORES and ENDPOINT not in command.params:
            command.params.append(ENDPOINT)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, in groups, without importing a command."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(MAX_NAME), line) for name, line in commands.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vemdiffuse_pipe")
def group() -> None:
    """Isotropic electron-microscopy volumes, with an uncertainty, from anisotropic ones of any size.

    \b
    Examples:
      vemdiffuse demo
      vemdiffuse reconstruct stack.tif isotropic.zarr --voxel-size 50 4.6 4.6
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else arguments))


def run_command(arguments: Sequence[str]) -> int:
    """The exit code of a command line, after running it. A failure is one sentence on stderr."""
    is_run = any(argument in _RUNS for argument in arguments[:1])
    try:
        with signals.received_early() if is_run else nullcontext():
            code = group.main(list(arguments), prog_name="vemdiffuse", standalone_mode=False)
        sys.stdout.flush()
    except signals.DrainRequest:
        return _drained(signals.came_early())
    except BrokenPipeError:
        return _closed_pipe()
    except click.Abort:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InputError as error:
        return _say(str(error), 2)
    except VemdiffuseError as error:
        return _say(str(error), 1)
    except Exception as error:
        if early := signals.came_early():  # compiled modules raise another error over it
            return _drained(early)
        return _interrupted() if _is_interrupt(error) else _bug(error)
    return code or 0


def _say(sentence: str, code: int) -> int:
    """Print one line, whatever a path or foreign metadata put into it."""
    printable = "".join(c if c.isprintable() else " " for c in sentence)
    click.echo(f"vemdiffuse: {' '.join(printable.split())}", err=True)
    return code


def _interrupted() -> int:
    return _say("interrupted; rerun to resume", 130)


def _drained(received: Signals | None) -> int:
    name = received.name if received else "a signal"
    return _say(f"{name} was received before a block was started; rerun to resume", 0)


def _is_interrupt(error: BaseException | None) -> bool:
    """True where an interrupt lies at the root of `error`: compiled modules raise another error over it."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or _is_interrupt(error.__cause__ or error.__context__)
    )


def _bug(error: Exception) -> int:
    if os.environ.get("VEMDIFFUSE_TRACEBACK") == "1":
        traceback.print_exception(error)
    return _say(
        f"this is a bug: {type(error).__name__}: {error}; please report it with the command "
        "(VEMDIFFUSE_TRACEBACK=1 shows where it happened)",
        1,
    )


def _closed_pipe() -> int:
    """Whoever read our output has gone: stay quiet, now and when the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
