"""What a crystal family leaves free of the six log parameters of a conventional cell.

The parameters are those of `lattice.log_parameters`, S11, S22, S33, S23, S13, S12 with conventional cell = exp(S) up to
a rotation. In every family they form a plane: equal diagonal entries where axes are equal, zeros at right angles, and
S12 = log(1/3) / 4 in hexagonal axes, where the metric in the ab plane is a^2 [[1, -1/2], [-1/2, 1]].
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from cdvae_kit.crystal.wyckoff import FAMILIES

HEXAGONAL_S12 = 0.25 * math.log(1.0 / 3.0)
_S12 = 5
_KEPT = {
    # groups of entries that share their mean; entries that are not named are 0
    "triclinic": ((0,), (1,), (2,), (3,), (4,), (5,)),
    "monoclinic": ((0,), (1,), (2,), (4,)),
    "orthorhombic": ((0,), (1,), (2,)),
    "tetragonal": ((0, 1), (2,)),
    "hexagonal": ((0, 1), (2,)),
    "cubic": ((0, 1, 2),),
}


@lru_cache(maxsize=8)
def _projectors(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(6 families, 6, 6)."""
    projectors = torch.zeros(len(FAMILIES), 6, 6, dtype=dtype, device=device)
    for i, family in enumerate(FAMILIES):
        for entries in _KEPT[family]:
            for row in entries:
                projectors[i, row, list(entries)] = 1.0 / len(entries)
    return projectors


def project_change(change: Tensor, family: Tensor) -> Tensor:
    """Changes of the log parameters (num_crystals, 6), less what would leave the family (num_crystals,) long.

    >>> project_change(torch.tensor([[1.0, 2.0, 3.0, 1.0, 1.0, 1.0]]), torch.tensor([3]))
    tensor([[1.5000, 1.5000, 3.0000, 0.0000, 0.0000, 0.0000]])
    """
    projectors = _projectors(change.device, change.dtype).index_select(0, family)
    return torch.matmul(projectors, change.unsqueeze(-1)).squeeze(-1)


def project_parameters(parameters: Tensor, family: Tensor, *, scale: Tensor | None = None) -> Tensor:
    """The nearest parameters of the family, (num_crystals, 6).

    Args:
        parameters: (num_crystals, 6), with equal centre and scale for the three diagonal entries, centre 0 and equal
            scale for the others.
        family: (num_crystals,) long, the index in `wyckoff.FAMILIES`.
        scale: (6,) what they were divided by; None: they are the log parameters themselves.
    """
    projected = project_change(parameters, family)
    fixed = HEXAGONAL_S12 / (scale[_S12] if scale is not None else 1.0)
    is_hexagonal = family == FAMILIES.index("hexagonal")
    s12 = torch.where(is_hexagonal, torch.as_tensor(fixed, dtype=projected.dtype, device=projected.device), 0.0)
    return projected + torch.nn.functional.pad(s12.unsqueeze(-1), (_S12, 0))


def num_free_parameters(family: int) -> int:
    """How many lattice parameters a family leaves free.

    >>> [num_free_parameters(i) for i in range(6)]
    [6, 4, 3, 2, 2, 1]
    """
    return len(_KEPT[FAMILIES[family]])
