"""Which samplers there are, and which of them need no score. Nothing here loads torch."""

from typing import Literal, get_args

SamplerName = Literal["flow", "heun", "langevin", "predictor-corrector"]

SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
"""Names for `make_sampler`."""

WITHOUT_SCORE: tuple[SamplerName, ...] = ("flow", "heun")
"""Those that a velocity is enough for; Langevin dynamics needs a score."""
