"""What a training run leaves for its reader: log.jsonl, a line a record; loss.png, the curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from vemdiffuse_pipe.storage.faults import writing

SIZE, MARGIN = (720, 360), 48


class Journal:
    """log.jsonl of a folder, from `step` on: lines of later steps, which are done again, are taken away."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.jsonl"
        kept = [record for record in self.records() if _number(record.get("step")) <= step]
        with writing(str(self.path)):
            folder.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(f"{json.dumps(record)}\n" for record in kept))

    def add(self, record: Mapping[str, object]) -> None:
        """One more line. Raises StorageFullError or OutputError."""
        with writing(str(self.path)), self.path.open("a") as file:
            file.write(f"{json.dumps(dict(record))}\n")

    def records(self) -> list[dict[str, object]]:
        """All lines that are whole: a kill may have cut the last one."""
        if not self.path.exists():
            return []
        records = []
        for line in self.path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def draw(self) -> None:
        """loss.png beside it: the loss by step, both as logged."""
        points = [(_number(r.get("step")), _number(r["loss"])) for r in self.records() if "loss" in r]
        path = self.path.with_name("loss.png")
        with writing(str(path)):
            curve(points).save(path)


def curve(points: Sequence[tuple[float, float]]) -> Image.Image:
    """A line through (step, loss), the loss on a logarithmic scale, with the ends of both axes named."""
    page = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(page)
    shown = [(x, math.log10(y)) for x, y in points if y > 0]  # the difficulty-aware loss may fall below zero
    if not shown:
        return page
    (left, right), (low, high) = ((min(v), max(v)) for v in zip(*shown, strict=True))
    width, height = SIZE[0] - 2 * MARGIN, SIZE[1] - 2 * MARGIN
    line = [
        (
            MARGIN + width * (x - left) / ((right - left) or 1),
            MARGIN + height * (high - y) / ((high - low) or 1),
        )
        for x, y in shown
    ]
    draw.rectangle((MARGIN, MARGIN, MARGIN + width, MARGIN + height), outline="gray")
    draw.line(line, fill="black", width=2)
    draw.text((4, MARGIN), f"{10**high:.3g}", fill="black")
    draw.text((4, MARGIN + height - 12), f"{10**low:.3g}", fill="black")
    draw.text((MARGIN, MARGIN + height + 8), f"loss, steps {left:.0f} to {right:.0f}", fill="black")
    return page


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
