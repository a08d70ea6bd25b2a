"""A price as people read it."""

from __future__ import annotations

from vemdiffuse_pipe.cli.format import show_bytes, show_count, show_duration
from vemdiffuse_pipe.pricing.plan_price import Price


def price_rows(price: Price) -> dict[str, str]:
    """The price, as rows of a table."""
    decoded = " before compression" if price.encoded_share == 1 else ""
    return {
        "price": f"{show_count(price.unit_hours)} {price.unit}-hours, {price.origin}\n"
        f"{show_duration(price.wall_s)} with {show_count(price.n_workers)} worker(s), "
        f"bound by {price.is_bound_by}",
        "traffic": f"{show_bytes(price.bytes_in)} in{decoded}, by {show_count(price.n_reads)} reads of "
        "chunks\n"
        f"{show_bytes(price.bytes_out)} out before compression, by {show_count(price.n_puts)} puts of shards",
        "cost": _cost(price),
        "savings": "\n".join(
            f"{'over 100' if saving.factor > 100 else f'{saving.factor:.3g}'} times: "
            f"{saving.change}{'' if saving.is_same_volume else ' (changes the result)'}"
            for saving in price.savings
        )
        or "none known",
    }


def _cost(price: Price) -> str:
    if not price.costs:
        return "not known: [price] in the run file states no rates (gpu_hour, core_hour, egress_gb, ...)"
    parts = ", ".join(
        f"{name} {amount:,.2f}" for name, amount in price.costs.items() if name != "storage_a_month"
    )
    lines = [f"{price.total:,.2f} {price.currency}{f': {parts}' if parts else ''}"]
    if "storage_a_month" in price.costs:
        kept = price.costs["storage_a_month"]
        lines.append(f"{kept:,.2f} {price.currency} a month to keep it, before compression")
    return "\n".join(lines)
