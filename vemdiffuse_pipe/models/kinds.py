"""The kinds of models: what holds for all networks of a kind; what differs is said by their sizes.

    kind        network                     draws     tiles               ratio
    flow        none: optical flow          no        one size, inexact   any
    filter      none: of one section        no        exact               none: it fills no gap
    lean        LeanNetwork                 samples   exact               any
    regression  LeanNetwork, one pass       no        exact               any
    udim        UdimNetwork, two sections   samples   one size, inexact   the one it was trained at
    cddpm       UdimNetwork, interpolation  samples   one size, inexact   any
    a2i3dem     AxialNetwork                no        exact               any
    sru3d       Sru3dNetwork                no        one size, exact     the one it was trained at
    rcan        Rcan, of one section        no        one size, inexact   none: it fills no gap
    pssr        Pssr, of one section        no        exact               none: it fills no gap
    estimator   EstimatorNetwork, one pass  no        exact               any
    sampler     SamplerNetwork              samples   exact               any
    estimator-sampler    both               samples   exact               any

Nothing here needs torch: plans are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vemdiffuse_pipe.models.sizes.a2i3dem import AxialConfig
from vemdiffuse_pipe.models.sizes.gap import EstimatorSizes, SamplerSizes
from vemdiffuse_pipe.models.sizes.lean import LeanConfig
from vemdiffuse_pipe.models.sizes.parameter_free import FilterSizes, FlowSizes, InterpolationSizes
from vemdiffuse_pipe.models.sizes.plain import PssrConfig, RcanConfig
from vemdiffuse_pipe.models.sizes.protocol import Sizes
from vemdiffuse_pipe.models.sizes.sru3d import Sru3dConfig
from vemdiffuse_pipe.models.sizes.udim import UdimConfig


@dataclass(frozen=True, slots=True)
class Kind:
    """What holds for every model of a kind. `samplers`: what can drive it; the first is the usual one.

    `needs_contrast`: sees standardised grey levels, so the volume's mean and deviation must be known.
    `fills_gaps`: False for those that only restore sections. `is_convolutional`: False where windows of
    attention, which are larger than a cell of the coarsest level, look further to one side than to the other.
    `has_estimate`: one pass gives a best estimate
    and its spread. `needs_sectioning`: is told how thick sections and planes are, and so can make planes
    that are thinner than sections.
    """

    sizes: type[Sizes]
    samplers: tuple[str, ...] = ()
    is_tile_exact: bool = True
    needs_contrast: bool = True
    needs_weights: bool = True
    fills_gaps: bool = True
    is_convolutional: bool = True
    has_estimate: bool = False
    needs_sectioning: bool = False

    @property
    def is_stochastic(self) -> bool:
        """True where samples are drawn."""
        return bool(self.samplers)


ODE_SAMPLERS = ("dpmpp-2m", "heun")
SAMPLERS = (*ODE_SAMPLERS, "ancestral", "ancestral-rescaled")
USUAL_STEPS = {"dpmpp-2m": 10, "heun": 35, "ancestral": 1000, "ancestral-rescaled": 200}

KINDS: dict[str, Kind] = {
    "interpolation": Kind(InterpolationSizes, needs_contrast=False, needs_weights=False),
    "flow": Kind(FlowSizes, is_tile_exact=False, needs_contrast=False, needs_weights=False),
    "filter": Kind(FilterSizes, needs_contrast=False, needs_weights=False, fills_gaps=False),
    "lean": Kind(LeanConfig, ODE_SAMPLERS),
    "regression": Kind(LeanConfig),
    "udim": Kind(UdimConfig, SAMPLERS, is_tile_exact=False, needs_contrast=False),
    "cddpm": Kind(UdimConfig, SAMPLERS, is_tile_exact=False, needs_contrast=False),
    "a2i3dem": Kind(AxialConfig, is_convolutional=False),
    "sru3d": Kind(Sru3dConfig),
    "rcan": Kind(RcanConfig, is_tile_exact=False, fills_gaps=False),
    "pssr": Kind(PssrConfig, fills_gaps=False),
    "estimator": Kind(EstimatorSizes, has_estimate=True, needs_sectioning=True),
    "sampler": Kind(SamplerSizes, ODE_SAMPLERS, needs_sectioning=True),
    "estimator-sampler": Kind(SamplerSizes, ODE_SAMPLERS, has_estimate=True, needs_sectioning=True),
}
