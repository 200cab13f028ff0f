"""Experiment `crystal-sensitivity`: what the encoder of a CDVAE feels of a crystal's description, and of its atoms.

The sensitivity of Speicher et al. (TMLR 2024, arXiv 2407.04325; see `similarity.sensitivity`) to changes whose truth is
known. Rotation, origin and order of the atoms are exact symmetries of the network, so that the number is rounding or a
fault. The choice of the cell is none: the network is told lattice and number of atoms, and sees fractional coordinates,
so that a supercell is another crystal to it unless the cell is made primitive and Niggli reduced first
(`PrimitiveCells`). Where lengths tie, as in a cubic cell whose atoms left their sites, a reduction alone would let
rounding decide which axis is called a, and a rotation would be felt; there the atoms decide.

Strain and displacement change the crystal; there is no right number, only how it grows. It is not smooth: the encoder
sees the twelve nearest neighbours and all that tie with the last of them within 0.01 angstrom, so that atoms which
leave the sites of a perfect crystal by about as much change the graph at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cdvae_kit.representation.methods.invariance_measures import Table, sensitivity_matrix
from cdvae_kit.representation.panels import Bars, Curve, Lines, Panel
from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms.base import Transform
from cdvae_kit.typing import ShareDone

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch

EXACT = 1e-5
"""A sensitivity above it is more than rounding in double precision."""
STRAINS = (0.003, 0.01, 0.03, 0.1)
DISPLACEMENTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_WEIGHTS = "perov_5"
_PROTOTYPE = "perovskite"
_EXACT = ("rotation", "origin", "order of atoms")
_DISTORTION = 0.1
"""Angstrom, of the atoms of the distorted crystals: no site has a symmetry left."""


def crystal_transforms() -> dict[str, Transform[CrystalBatch]]:
    """By name: the exact symmetries of a description, the supercell of two cells, strains, displacements (angstrom)."""
    from cdvae_kit.transforms.crystal_motions import (
        AtomDisplacement,
        AtomPermutation,
        CrystalRotation,
        OriginShift,
        Supercell,
    )
    from cdvae_kit.transforms.crystals import RandomStrain

    return {
        "rotation": CrystalRotation(),
        "origin": OriginShift(),
        "order of atoms": AtomPermutation(),
        "supercell": Supercell(2),
        **{f"strain {strain:g}": RandomStrain(strain) for strain in STRAINS},
        **{f"displacement {std:g}": AtomDisplacement(std) for std in DISPLACEMENTS},
    }


class PrimitiveCells(nn.Module):
    """An encoder that sees each crystal in the Niggli cell of its primitive lattice, whatever cell it came in.

    Among cells of equal lengths and angles a reduction chooses one by its rounding, and an encoder that looks at
    fractional coordinates may tell them apart; the atoms choose instead (`crystal.symmetry.settle_setting`).

    Args:
        encoder: of crystals.
        tolerance: angstrom, up to which atoms are taken for translated copies of each other.
    """

    def __init__(self, encoder: Any, *, tolerance: float = 0.01) -> None:
        super().__init__()
        self.encoder = encoder
        self.tolerance = tolerance
        self.out_features = encoder.out_features

    def forward(self, batch: CrystalBatch) -> Tensor:
        from cdvae_kit.crystal.conversion import structures_to_batch
        from cdvae_kit.crystal.symmetry import niggli_reduce, settle_setting

        found = [settle_setting(niggli_reduce(s.get_primitive_structure(self.tolerance))) for s in batch.structures()]
        return self.encoder(structures_to_batch(found, dtype=batch.lattice.dtype).to(batch.lattice.device))


def crystal_sensitivities(
    encoder: Any, crystals: CrystalBatch, transforms: dict[str, Transform[CrystalBatch]], *, seed: int
) -> dict[str, float]:
    """The sensitivity of an encoder to each transform; the crystals should be of one type and differ in elements."""
    table: Table = sensitivity_matrix({"encoder": encoder}, transforms, crystals, generator=make_generator(seed))
    return table.row("encoder")


def perovskites(known: Sequence[int], *, num_crystals: int, seed: int) -> CrystalBatch:
    """Cubic ABX3 of the built-in set in double precision, only of elements in `known`."""
    from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes

    everything = load_ionic_prototypes(dtype=torch.float64)
    strangers = ~torch.isin(everything.atomic_numbers, torch.as_tensor(known))
    strange = torch.zeros(len(everything), dtype=torch.long).index_add(0, everything.batch, strangers.long()) > 0
    ids = everything.material_ids or []
    rows = torch.tensor([i for i, name in enumerate(ids) if name.startswith(_PROTOTYPE) and not strange[i]])
    if len(rows) < num_crystals:
        raise ValueError(f"there are {len(rows)} perovskites of known elements, {num_crystals} were asked for")
    order = torch.randperm(len(rows), generator=make_generator(seed, 51))[:num_crystals]
    return everything.select(rows[order].sort().values)


class CrystalSensitivity(Experiment):
    """The encoder of the carried weights `perov_5`, in double precision, on built-in perovskites."""

    name = "crystal-sensitivity"
    paper = "the sensitivity of Speicher et al., TMLR 2024, arXiv 2407.04325, on crystals"
    summary = "the CDVAE encoder under exact symmetries, supercells, strain and displacement"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return ["as given", "primitive cells"]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        from cdvae_kit.representation.methods.encoder import CrystalVAEEncoder
        from cdvae_kit.transforms.crystal_motions import AtomDisplacement

        encoder = CrystalVAEEncoder.from_pretrained(_WEIGHTS, device="cpu").double()
        crystals = perovskites(encoder.model.known_elements.tolist(), num_crystals=20 if quick else 100, seed=seed)
        distorted = AtomDisplacement(_DISTORTION)(crystals, generator=make_generator(seed, 52))
        transforms = crystal_transforms()
        exact = {name: transforms[name] for name in _EXACT}
        values: dict[str, float] = {}
        for kind, some in (("ideal", crystals), ("distorted", distorted)):
            if part == "as given":
                found = crystal_sensitivities(encoder, some, exact, seed=seed)
            else:
                found = crystal_sensitivities(
                    PrimitiveCells(encoder), some, {**exact, "supercell": transforms["supercell"]}, seed=seed
                )
            values |= {f"{part}, {kind}: {name}": value for name, value in found.items()}
        if part == "as given":
            changes = {name: t for name, t in transforms.items() if name not in (*_EXACT, "supercell")}
            values |= crystal_sensitivities(encoder, crystals, changes, seed=seed)
        return PartResult(values)

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        # the exact symmetries are the network's by construction, which tests hold it to; the rest has no right number
        return []

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        exact = {name: result.per_seed(name) for name in result.arms if ":" in name}
        curves = {}
        for label, kind, levels in (
            ("strain", "strain", STRAINS),
            ("displacement of atoms, angstrom", "displacement", DISPLACEMENTS),
        ):
            arms = [f"{kind} {level:g}" for level in levels]
            curves[label] = Curve(
                levels, [result.mean(arm) for arm in arms], [result.standard_error(arm) for arm in arms]
            )
        return [
            Bars("exact symmetries", "sensitivity", exact, ("rounding", EXACT), log=True),
            Lines("changes of the crystal", "strength", "sensitivity", curves, log_x=True, log_y=True),
        ]


EXPERIMENT = CrystalSensitivity()
