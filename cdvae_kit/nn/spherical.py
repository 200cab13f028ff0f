"""Radial functions for every degree of an angle: spherical Bessel functions with roots at the cutoff."""

import math
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import Tensor, nn

from cdvae_kit.nn.directional import legendre

_NUM_TERMS = 16


def spherical_bessel(x: Tensor, degree: int) -> Tensor:
    """j_l(x) for x >= 0, to rounding: its power series below l + 1, the recurrence in l above, where that is stable.

    >>> spherical_bessel(torch.tensor([0.0, 3.0]), 0)
    tensor([1.0000, 0.0470])
    """
    if degree == 0:
        return torch.sinc(x / math.pi)
    large = x.clamp_min(degree + 1.0)
    previous, value = torch.sin(large) / large, (torch.sin(large) / large - torch.cos(large)) / large
    for order in range(1, degree):
        previous, value = value, (2 * order + 1) / large * value - previous
    small = x.clamp_max(degree + 1.0)
    term = torch.ones_like(x)
    for order in range(1, degree + 1):
        term = term * small / (2 * order + 1)
    series = term
    for k in range(1, _NUM_TERMS):
        term = term * small.square() * (-0.5 / (k * (2 * degree + 2 * k + 1)))
        series = series + term
    return torch.where(x < degree + 1.0, series, value)


def spherical_bessel_roots(num_degrees: int, num_roots: int) -> np.ndarray:
    """(num_degrees, num_roots) float64: the first positive roots of j_0, j_1, ..."""
    # the roots of j_l lie between those of j_(l-1), so one more is needed for each degree to come
    roots = np.arange(1, num_roots + num_degrees) * math.pi
    rows = [roots[:num_roots]]
    for degree in range(1, num_degrees):
        roots = np.array(
            [
                brentq(lambda x, degree=degree: spherical_jn(degree, x), low, high, xtol=1e-13)
                for low, high in pairwise(roots)
            ]
        )
        rows.append(roots[:num_roots])
    return np.stack(rows)


class SphericalBasis(nn.Module):
    """j_l(z_ln d / c) of a distance times Y_l0 of an angle, for l below `num_degrees` and n up to `num_radial`.

    Source: Gasteiger et al., "Directional message passing" (ICLR 2020, arXiv 2003.03123), eq. 6 to 8: the same numbers
    as `torch_geometric.nn.models.dimenet.SphericalBasisLayer`, which takes 10 s to build and loses its digits in
    float32 at short distances.
    """

    roots: Tensor
    scales: Tensor

    def __init__(self, num_degrees: int, num_radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        roots = spherical_bessel_roots(num_degrees, num_radial)
        slopes = np.stack([spherical_jn(degree + 1, roots[degree]) for degree in range(num_degrees)])
        scales = math.sqrt(2.0) / np.abs(slopes) / math.sqrt(4.0 * math.pi)
        self.register_buffer("roots", torch.from_numpy(roots).to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("scales", torch.from_numpy(scales).to(torch.get_default_dtype()), persistent=False)

    def forward(self, distance: Tensor, cosine: Tensor, incoming: Tensor) -> Tensor:
        """(num_triplets, num_degrees * num_radial).

        Args:
            distance: (num_edges,), angstrom, above 0.
            cosine: (num_triplets,), of the angle.
            incoming: (num_triplets,) long, the edge whose distance it is.
        """
        x = (distance / self.cutoff).unsqueeze(-1)
        # envelope with p = 6, and its 1 / x
        envelope = (1.0 / x - 28.0 * x**5 + 48.0 * x**6 - 21.0 * x**7) * (x < 1.0)
        radial = torch.stack([spherical_bessel(x * roots, degree) for degree, roots in enumerate(self.roots)], dim=1)
        radial = radial * self.scales * envelope.unsqueeze(-1)
        angular = legendre(cosine, len(self.roots))
        return (radial.index_select(0, incoming) * angular.unsqueeze(-1)).flatten(1)
