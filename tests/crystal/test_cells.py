"""The same crystal in another cell."""

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.crystal.cells import CellChoice, in_cell
from cdvae_kit.crystal.lattice import lattice_parameters, volume
from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.crystal.symmetry import space_group
from cdvae_kit.datasets import load_dataset


@pytest.fixture(scope="module")
def crystals() -> CrystalBatch:
    return load_dataset("ionic_prototypes", split="test").crystals.select(range(0, 190, 5))


@pytest.mark.parametrize("cell", ["primitive", "conventional", "niggli"])
def test_every_cell_is_of_the_same_crystal(crystals: CrystalBatch, cell: CellChoice) -> None:
    matcher = StructureMatcher()
    moved = in_cell(crystals, cell)
    assert all(matcher.fit(one, other) for one, other in zip(crystals.structures(), moved.structures(), strict=True))
    assert moved.material_ids == crystals.material_ids


def test_the_conventional_cell_holds_as_many_primitive_ones_as_its_centring_says(crystals: CrystalBatch) -> None:
    described = describe(crystals)
    conventional = in_cell(described, "conventional")
    times = conventional.num_atoms / described.num_atoms
    torch.testing.assert_close(volume(conventional.lattice) / volume(described.lattice), times, rtol=1e-4, atol=0.0)
    assert sorted(set(times.tolist())) == [1.0, 2.0, 3.0, 4.0] or set(times.tolist()) <= {1.0, 2.0, 3.0, 4.0}
    assert [group.number for group in space_group(conventional, 0.01)] == described.space_group.tolist()


def test_cubic_crystals_have_right_angles_in_the_conventional_cell_alone(crystals: CrystalBatch) -> None:
    described = describe(crystals)
    face_centred = (described.space_group == 225).nonzero().squeeze(-1)
    assert len(face_centred) > 2
    some = described.select(face_centred)
    _, conventional = lattice_parameters(in_cell(some, "conventional").lattice)
    _, primitive = lattice_parameters(in_cell(some, "primitive").lattice)
    torch.testing.assert_close(conventional, torch.full_like(conventional, 90.0), atol=1e-3, rtol=0.0)
    assert not bool((primitive - 90.0).abs().max(-1).values.lt(1.0).any())


def test_another_word_is_refused(crystals: CrystalBatch) -> None:
    with pytest.raises(ValueError, match="primitive, conventional, niggli"):
        in_cell(crystals, "round")  # type: ignore[arg-type]
