"""Tables of ABX3 compositions with labels made by a rule of radii, or by a table that radii say nothing about.

The two arms that show where functional coverage binds (Chang et al. 2025, arXiv 2505.20278; the comparison is ours):
labels that follow Goldschmidt's tolerance factor (Naturwissenschaften 14, 477, 1926) can be known of an element that
was never seen, from its radius; labels that follow random groups of elements cannot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cdvae_kit.datasets.ionic_radii import ANION_RADII, CATION_RADII, anion_radius, cation_radius
from cdvae_kit.seeding import make_generator

_COORDINATION = 6
_ELEMENTS, _RULE = 0, 1  # keys of the draws


@dataclass(frozen=True)
class PerovskiteTable:
    """All combinations of ions on the three sites.

    Attributes:
        tokens: (n, 3) long, the numbers of the ions on A, B and X.
        radii: (n, 3) float, angstrom; Shannon's for six neighbours on every site, since few are known for twelve.
        labels: (n,) long.
        ions: of each site, by number, as chemists write them.
    """

    tokens: Tensor
    radii: Tensor
    labels: Tensor
    ions: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def perovskite_table(
    rule: Literal["tolerance", "random"],
    *,
    seed: int,
    num_cations: int = 24,
    num_labels: int = 6,
    num_groups: int = 6,
) -> PerovskiteTable:
    """A table of `num_cations` ions on A and on B, drawn from those with a radius, and all nine anions on X.

    Args:
        rule: labels are the tolerance factor (r_A + r_X) / (√2 (r_B + r_X)) in bins of nearly equal number, or a
            uniform random entry for each pair of hidden groups of A and B and each anion.
        seed: of the ions, the groups and the entries.
        num_cations: for each site.
        num_labels: bins, or values of an entry.
        num_groups: of cations on each site, for the random rule.

    >>> table = perovskite_table("tolerance", seed=0)
    >>> table.tokens.shape, table.labels.unique().tolist()
    (torch.Size([5184, 3]), [0, 1, 2, 3, 4, 5])
    """
    if rule not in ("tolerance", "random"):
        raise ValueError(f"expected the rule tolerance or random, got {rule!r}")
    known = [(ion.label, radius) for ion in CATION_RADII if (radius := cation_radius(ion, _COORDINATION)) is not None]
    if not 2 <= num_cations <= len(known) or num_labels < 2 or num_groups < 1:
        raise ValueError(
            f"expected 2 to {len(known)} cations, 2 labels or more and a group or more, got {num_cations}, "
            f"{num_labels}, {num_groups}"
        )
    generator = make_generator(seed, _ELEMENTS)
    cations = [
        [known[i] for i in torch.randperm(len(known), generator=generator)[:num_cations].tolist()] for _ in range(2)
    ]
    sites = [*cations, [(ion.label, anion_radius(ion, _COORDINATION)) for ion in ANION_RADII]]
    axes = [torch.arange(len(site)) for site in sites]
    tokens = torch.cartesian_prod(*axes)
    columns = [
        torch.tensor([radius for _, radius in site], dtype=torch.float64)[tokens[:, i]] for i, site in enumerate(sites)
    ]
    radii = torch.stack(columns, dim=1)
    if rule == "tolerance":
        factor = (radii[:, 0] + radii[:, 2]) / (math.sqrt(2.0) * (radii[:, 1] + radii[:, 2]))
        labels = equal_bins(factor, num_labels)
    else:
        labels = _by_groups(tokens, num_cations, len(sites[2]), num_labels, num_groups, seed)
    a, b, x = (tuple(label for label, _ in site) for site in sites)
    return PerovskiteTable(tokens, radii, labels, (a, b, x))


def equal_bins(values: Tensor, num_bins: int) -> Tensor:
    """(n,) long, bins that hold equal numbers of values, from the lowest; equal values share one.

    >>> equal_bins(torch.tensor([3.0, 1.0, 2.0, 4.0]), 2).tolist()
    [1, 0, 0, 1]
    """
    if num_bins < 1 or values.ndim != 1 or len(values) < num_bins or not bool(torch.isfinite(values).all()):
        raise ValueError(f"expected {num_bins} finite values or more in one row, got {tuple(values.shape)}")
    shares = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
    edges = torch.quantile(values.double(), shares) if num_bins > 1 else values.new_zeros(0).double()
    return torch.bucketize(values.double(), edges)


def _by_groups(
    tokens: Tensor, num_cations: int, num_anions: int, num_labels: int, num_groups: int, seed: int
) -> Tensor:
    generator = make_generator(seed, _RULE)
    # groups of equal size, so that none is a single ion
    group = [torch.arange(num_cations)[torch.randperm(num_cations, generator=generator)] % num_groups for _ in range(2)]
    entries = torch.randint(num_labels, (num_groups, num_groups, num_anions), generator=generator)
    return entries[group[0][tokens[:, 0]], group[1][tokens[:, 1]], tokens[:, 2]]
