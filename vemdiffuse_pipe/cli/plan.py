"""vemdiffuse plan: what a run would do and need."""

from __future__ import annotations

from pathlib import Path

import click

from vemdiffuse_pipe import config
from vemdiffuse_pipe.cli.options import json_option, run_file_argument, warn_unchecked_limit
from vemdiffuse_pipe.cli.plan_report import print_plan
from vemdiffuse_pipe.cluster.resources import check_memory, check_memory_limit
from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.output.mask import open_run_mask
from vemdiffuse_pipe.output.preparation import prepare, prepare_offline
from vemdiffuse_pipe.plan.plan import Plan
from vemdiffuse_pipe.pricing.plan_price import Price, check_limit
from vemdiffuse_pipe.pricing.run_price import measured_price, stated_price


@click.command("plan")
@run_file_argument
@click.option(
    "--price",
    "--time",
    "with_price",
    is_flag=True,
    help="Also hours, bytes and cost: read and render one block, without writing it.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Do not open the source: take it from [source.assume], and the speed of a GPU from [price] tflops.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="With --price: the price of a job array of N; else of the workers that the run file asks for.",
)
@json_option
def command(file: Path, with_price: bool, offline: bool, jobs: int | None, as_json: bool) -> None:
    """Print what a run would do and need; nothing is computed.

    With --price, one block is rendered to measure what the run will cost. Exit code 2: the run needs more
    memory than there is, or more hours than the run file allows.

    \b
    Examples:
      vemdiffuse plan run.toml
      vemdiffuse plan run.toml --price
      vemdiffuse plan run.toml --price --jobs 64
      vemdiffuse plan run.toml --json
      vemdiffuse plan microns.toml --offline --price
    """
    if jobs is not None and not with_price:
        raise ConfigError("--jobs is for a price; add --price, or leave it out")
    run_file = config.load(file)
    if offline:
        plan = prepare_offline(run_file)
        price = stated_price(plan, jobs) if with_price else None
        print_plan(plan, price, as_json=as_json)
        check_memory_limit(plan)
        _check_price(plan, price)
        if with_price and run_file.run.device == "cpu":  # the price was one of GPUs
            warn_unchecked_limit(run_file)
        return
    source, plan = prepare(run_file)
    open_run_mask(plan)  # to see that it can be used
    price = measured_price(plan, source, jobs) if with_price else None
    print_plan(plan, price, as_json=as_json)
    check_memory_limit(plan)
    check_memory(plan)
    _check_price(plan, price)


def _check_price(plan: Plan, price: Price | None) -> None:
    if price is not None:
        check_limit(price, plan.run_file.price)
