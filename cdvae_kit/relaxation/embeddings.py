"""Features of crystals by a potential: what its network holds of a crystal just before the energy, mean over atoms.

Such features tell chemistry and structure apart without being trained for it; a Fréchet distance between those of two
sets says how far the sets lie apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from cdvae_kit.relaxation.calculators import CalculatorError, make_potential
from cdvae_kit.relaxation.potentials import CHGNetPotential
from cdvae_kit.relaxation.result import CrystalLike

EMBEDDERS = ("chgnet",)
"""Potentials whose features can be had."""


def make_embedder(name: str, *, device: str = "auto") -> Callable[[Sequence[CrystalLike]], np.ndarray]:
    """A function of crystals to their features, (num_crystals, width); NaN rows where the potential has none.

    Args:
        name: one of `EMBEDDERS`.
        device: of the network.
    """
    if name not in EMBEDDERS:
        raise CalculatorError(f"features of {name!r} cannot be had; choose {', '.join(EMBEDDERS)}")
    potential = make_potential(name, device=device)
    assert isinstance(potential, CHGNetPotential)
    return lambda crystals: embed(potential, crystals)


@torch.no_grad()
def embed(potential: CHGNetPotential, crystals: Sequence[CrystalLike]) -> np.ndarray:
    """Features (num_crystals, width) of crystals, NaN rows where CHGNet makes no graph of one."""
    from pymatgen.core import Element, Lattice, Structure

    structures = [
        Structure(Lattice(one.lattice), [Element.from_Z(int(z)) for z in one.atomic_numbers], one.frac_coords)
        for one in crystals
    ]
    if not structures:
        return np.zeros((0, 0))
    graphs, good = [], []
    for i, structure in enumerate(structures):
        graph, _ = potential._graph(structure)
        if graph is not None:
            graphs.append(graph)
            good.append(i)
    found = None
    model = potential.model.eval()
    device = next(model.parameters()).device
    for first in range(0, len(graphs), potential.batch_size):
        some = [graph.to(device) for graph in graphs[first : first + potential.batch_size]]
        features = model(some, task="e", return_crystal_feas=True)["crystal_fea"].cpu().double().numpy()
        if found is None:
            found = np.full((len(structures), features.shape[1]), np.nan)
        found[good[first : first + potential.batch_size]] = features
    return np.full((len(structures), 1), np.nan) if found is None else found
