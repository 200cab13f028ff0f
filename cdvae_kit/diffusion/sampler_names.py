"""Which samplers there are, and which go with which noise on the coordinates. Nothing here loads torch."""

from typing import Literal, get_args

SamplerName = Literal["flow", "heun", "langevin", "predictor-corrector"]

SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
"""Names for `make_sampler`."""


def samplers_for(coordinates: str) -> tuple[SamplerName, ...]:
    """The samplers of a model by its noise on the coordinates (`CDVAEConfig.noise.coordinates`).

    A straight path has a velocity and no score, which Langevin dynamics needs.

    >>> samplers_for("straight_path")
    ('flow', 'heun')
    """
    return SAMPLERS[:2] if coordinates == "straight_path" else SAMPLERS
