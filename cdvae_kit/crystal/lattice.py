"""Lattice mathematics on batches: parameters, volumes, metric tensors, periodic wrapping.

Everything here is a pure, differentiable function of tensors whose lattices hold the vectors a, b, c
as rows, in angstrom. What knows of atoms' species lives in `batch` and `symmetry`.
"""

import torch
from torch import Tensor


def lattice_from_parameters(lengths: Tensor, angles: Tensor) -> Tensor:
    """Lattice matrices, (num_crystals, 3, 3), in pymatgen's frame: c along z, a in the xz plane.

    Args:
        lengths: (num_crystals, 3) lengths a, b, c in angstrom.
        angles: (num_crystals, 3) angles alpha, beta, gamma in degrees.

    >>> lattice_from_parameters(torch.tensor([[1.0, 2.0, 3.0]]), torch.full((1, 3), 90.0)).diagonal(dim1=1, dim2=2)
    tensor([[1., 2., 3.]])
    """
    cosines = torch.cos(torch.deg2rad(angles))
    sines = torch.sin(torch.deg2rad(angles))
    cos_alpha, cos_beta, cos_gamma = cosines.unbind(-1)
    sin_alpha, sin_beta, _ = sines.unbind(-1)
    a, b, c = lengths.unbind(-1)
    cos_gamma_star = ((cos_alpha * cos_beta - cos_gamma) / (sin_alpha * sin_beta)).clamp(-1.0, 1.0)
    # sqrt has an infinite slope at 0, which a flat cell reaches
    sin_gamma_star = torch.sqrt((1.0 - cos_gamma_star**2).clamp_min(1e-12))
    zero = torch.zeros_like(a)
    vector_a = torch.stack([a * sin_beta, zero, a * cos_beta], dim=-1)
    vector_b = torch.stack([-b * sin_alpha * cos_gamma_star, b * sin_alpha * sin_gamma_star, b * cos_alpha], dim=-1)
    vector_c = torch.stack([zero, zero, c], dim=-1)
    return _exact_right_angles(torch.stack([vector_a, vector_b, vector_c], dim=-2))


def _exact_right_angles(lattice: Tensor) -> Tensor:
    """The same lattices without the 1e-8 that cos(90 degrees) leaves in floating point."""
    scale = lattice.abs().amax(dim=(-1, -2), keepdim=True)
    # the entries keep their gradient
    return torch.where(lattice.abs() < 1e-7 * scale, lattice - lattice.detach(), lattice)


def lattice_parameters(lattice: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (num_crystals, 3) in angstrom and angles (num_crystals, 3) in degrees."""
    lengths = lattice.norm(dim=-1)
    units = lattice / lengths.unsqueeze(-1).clamp_min(1e-12)
    cosines = torch.stack([(units[..., i, :] * units[..., j, :]).sum(-1) for i, j in ((1, 2), (0, 2), (0, 1))], dim=-1)
    return lengths, torch.rad2deg(torch.arccos(cosines.clamp(-1.0, 1.0)))


def volume(lattice: Tensor) -> Tensor:
    """Volumes (num_crystals,) in cubic angstrom, never negative."""
    a, b, c = lattice.unbind(-2)
    return (torch.linalg.cross(a, b) * c).sum(-1).abs()


def metric_tensor(lattice: Tensor) -> Tensor:
    """`lattice @ lattice.T` of each crystal, in square angstrom: what a rotation leaves as it is."""
    return lattice @ lattice.transpose(-1, -2)


def plane_spacings(lattice: Tensor) -> Tensor:
    """Distances (num_crystals, 3) between the faces of each cell, in angstrom: V/|b x c| and so on."""
    a, b, c = lattice.unbind(-2)
    areas = torch.stack(
        [
            torch.linalg.cross(b, c).norm(dim=-1),
            torch.linalg.cross(c, a).norm(dim=-1),
            torch.linalg.cross(a, b).norm(dim=-1),
        ],
        dim=-1,
    )
    return volume(lattice).unsqueeze(-1) / areas.clamp_min(1e-12)


def wrap_frac_coords(frac_coords: Tensor) -> Tensor:
    """The same points in [0, 1).

    >>> wrap_frac_coords(torch.tensor([-0.25, 1.0, 0.5]))
    tensor([0.7500, 0.0000, 0.5000])
    """
    wrapped = frac_coords - torch.floor(frac_coords)
    # -1e-9 wraps to 1 in float32
    return torch.where(wrapped >= 1.0, torch.zeros_like(wrapped), wrapped)


def wrap_displacement(displacement: Tensor) -> Tensor:
    """Fractional displacements brought to [-0.5, 0.5]: the nearest image along each axis, not in space."""
    return displacement - torch.round(displacement)


def log_parameters(lattice: Tensor) -> Tensor:
    """Six numbers (num_crystals, 6) that any cell has and any six numbers give back: the logarithm of the stretch.

    With the metric tensor G = L L^T, half its matrix logarithm is a symmetric S with L = exp(S) up to a rotation;
    the order is S11, S22, S33, S23, S13, S12. Rotations leave it as it is.
    """
    eigenvalues, vectors = torch.linalg.eigh(metric_tensor(lattice))
    logs = 0.5 * torch.log(eigenvalues.clamp_min(1e-12))
    stretch = vectors @ torch.diag_embed(logs) @ vectors.transpose(-1, -2)
    return torch.stack([stretch[..., i, j] for i, j in _UPPER], dim=-1)


def lattice_from_log_parameters(parameters: Tensor) -> Tensor:
    """The symmetric lattice exp(S), (num_crystals, 3, 3): the inverse of `log_parameters`, up to a rotation."""
    rows = [parameters[..., k] for k in (0, 5, 4, 5, 1, 3, 4, 3, 2)]
    return torch.linalg.matrix_exp(torch.stack(rows, dim=-1).unflatten(-1, (3, 3)))


_UPPER = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
