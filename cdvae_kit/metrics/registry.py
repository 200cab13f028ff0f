"""Every metric that the package has: the families in the order in which their numbers are shown.

A new metric goes into the module of its family; a new family is named here.
"""

from __future__ import annotations

from cdvae_kit.metrics.bonding import FAMILY as BONDING
from cdvae_kit.metrics.continuous import FAMILY as CONTINUOUS
from cdvae_kit.metrics.coverage import FAMILY as COVERAGE
from cdvae_kit.metrics.distributions import FAMILY as DISTRIBUTIONS
from cdvae_kit.metrics.latent import FAMILY as LATENT
from cdvae_kit.metrics.metric import Family, Metric
from cdvae_kit.metrics.novelty import FAMILY as NOVELTY
from cdvae_kit.metrics.polymorphs import FAMILY as POLYMORPHS
from cdvae_kit.metrics.properties import FAMILY as PROPERTIES
from cdvae_kit.metrics.reconstruction import FAMILY as RECONSTRUCTION
from cdvae_kit.metrics.stability import FAMILY as STABILITY
from cdvae_kit.metrics.sun import FAMILY as SUN
from cdvae_kit.metrics.supply import FAMILY as SUPPLY
from cdvae_kit.metrics.symmetry import FAMILY as SYMMETRY
from cdvae_kit.metrics.templates import FAMILY as TEMPLATES
from cdvae_kit.metrics.uniqueness import FAMILY as UNIQUENESS
from cdvae_kit.metrics.validity import FAMILY as VALIDITY

FAMILIES: tuple[Family, ...] = (
    VALIDITY,
    COVERAGE,
    DISTRIBUTIONS,
    PROPERTIES,
    LATENT,
    SYMMETRY,
    TEMPLATES,
    UNIQUENESS,
    NOVELTY,
    CONTINUOUS,
    BONDING,
    STABILITY,
    SUN,
    POLYMORPHS,
    RECONSTRUCTION,
    SUPPLY,
)


def registered_metrics() -> dict[str, Metric]:
    """Every metric that does not depend on what is given, by name.

    >>> registered_metrics()["cov_recall"].label
    'COV recall'
    """
    return {metric.name: metric for family in FAMILIES for metric in family.metrics}
