"""What a volume of thick sections teaches about itself, and what keeps the network from forgetting the rest.

    sections   every second one left out, the middle one learnt: real sections, their noise and misalignment
    lateral    gaps along y and x, r pixels wide, z in their place, as it is and resampled (vEMDiffuse-a)
    replay     gaps cut out of a phantom by the recipe of the shipped weights, whose data is not shipped

A step is of one of them, in the order of `PATTERN`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vemdiffuse_pipe.models.gap_models import BothNetworks
from vemdiffuse_pipe.models.gap_networks import condition_values
from vemdiffuse_pipe.training.degraded import DegradedBatches, DegradedGaps
from vemdiffuse_pipe.training.gaps import Batches, GapBatch
from vemdiffuse_pipe.training.objectives.draws import Draws
from vemdiffuse_pipe.training.objectives.gaps import Estimation, PlaneDiffusion

SECTIONS, LATERAL, REPLAY = "sections", "lateral", "replay"
PATTERN = (SECTIONS, LATERAL, SECTIONS, REPLAY)


@dataclass(frozen=True, slots=True)
class ToldGaps(GapBatch):
    """Gaps of which the networks are told how they were cut.

    `clean`: (b, n, y, x), the targets without the noise of the microscope; the targets where it is not known.
    `noise_variance`: (b, n, y, x). `conditions`: (b, N_CONDITIONS). `positions`: (n,), of the targets.
    """

    clean: Tensor
    noise_variance: Tensor
    conditions: Tensor
    positions: Tensor

    @property
    def degraded(self) -> DegradedGaps:
        """The same as the objectives of the two networks take it."""
        return DegradedGaps(
            self.sections,
            self.clean,
            self.targets,
            self.noise_variance,
            self.conditions,
            self.positions,
            self.ratio,
        )


@dataclass(frozen=True, slots=True)
class Cutting:
    """How gaps of a volume were cut.

    `gap`, `section`, `plane`: width and thicknesses, px. `ratio`: one more than the planes that are told.
    """

    gap: float
    section: float
    plane: float
    ratio: int
    pixel_nm: float

    def told(self, n: int) -> Tensor:
        """The conditions of n such gaps: (n, N_CONDITIONS)."""
        values = condition_values(self.gap, self.pixel_nm, self.section / self.gap, self.plane / self.gap)
        return torch.tensor([values]).expand(n, -1)


@dataclass(frozen=True, slots=True)
class OwnGaps:
    """Batches of a volume's own gaps, told how they were cut: the middle gap of three is learnt."""

    batches: Batches
    cutting: Cutting

    @property
    def n_bytes(self) -> tuple[int, int]:
        """(decoded, used) so far."""
        return self.batches.n_bytes

    @property
    def n_rejected(self) -> int:
        """Crops that were black or flat, so far."""
        return self.batches.n_rejected

    def batch(self, step: int, share: slice = slice(None)) -> ToldGaps:
        """The batch of `step`, or a share of it."""
        three = self.batches.batch(step, share)
        r = three.ratio  # of the batch: 2 where the one plane in the middle was measured
        targets = three.targets[:, r : 2 * r - 1]
        positions = torch.arange(1, r) / r
        conditions = self.cutting.told(len(targets))
        zeros = torch.zeros_like(targets)
        return ToldGaps(three.sections, targets, self.cutting.ratio, targets, zeros, conditions, positions)

    def close(self) -> None:
        """End the readers."""
        self.batches.close()


@dataclass(frozen=True, slots=True)
class Replayed:
    """Gaps cut by a recipe, as the shipped weights learnt them."""

    batches: DegradedBatches

    n_bytes = (0, 0)
    n_rejected = 0

    def batch(self, step: int, share: slice = slice(None)) -> ToldGaps:
        """The batch of `step`, or a share of it."""
        gaps = self.batches.batch(step)
        parts = (gaps.clean[share], gaps.noise_variance[share], gaps.conditions[share], gaps.positions)
        return ToldGaps(gaps.sections[share], gaps.noisy[share], gaps.ratio, *parts)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """Batches of several kinds in the order of `pattern`, over and over; of one kind its sources in turn."""

    kinds: Mapping[str, Sequence[Batches]]
    pattern: Sequence[str] = PATTERN

    @property
    def n_bytes(self) -> tuple[int, int]:
        """(decoded, used) so far, of all kinds."""
        decoded, used = zip(*(batches.n_bytes for batches in self._all), strict=True)
        return sum(decoded), sum(used)

    @property
    def n_rejected(self) -> int:
        """Of all kinds."""
        return sum(batches.n_rejected for batches in self._all)

    def batch(self, step: int, share: slice = slice(None)) -> GapBatch:
        """The batch of `step`: of the kind and the source whose turn it is."""
        rounds, place = divmod(step, len(self.pattern))
        kind = self.pattern[place]
        number = rounds * self.pattern.count(kind) + list(self.pattern[:place]).count(kind)
        sources = self.kinds[kind]
        return sources[number % len(sources)].batch(number // len(sources), share)

    def close(self) -> None:
        """End the readers of all kinds."""
        for batches in self._all:
            batches.close()

    @property
    def _all(self) -> list[Batches]:
        return [batches for sources in self.kinds.values() for batches in sources]


@dataclass(frozen=True, slots=True)
class BothObjectives:
    """The losses of the estimator and of the sampler, added: neither network knows the other."""

    estimation: Estimation
    diffusion: PlaneDiffusion

    def __call__(self, network: nn.Module, batch: GapBatch, draws: Draws) -> Tensor:
        """The loss; a scalar."""
        assert isinstance(network, BothNetworks)
        assert isinstance(batch, ToldGaps)
        gaps = batch.degraded
        return self.estimation(network.estimator, gaps, draws) + self.diffusion(network.sampler, gaps, draws)
