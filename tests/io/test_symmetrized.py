"""CIFs with symmetry operations, read back by other programs."""

import io

import ase.io
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure

from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe
from cdvae_kit.datasets import load_dataset
from cdvae_kit.io.crystals.symmetrized import operations_xyz, symmetrized_cif_texts


@pytest.fixture(scope="module")
def crystals() -> SymmetricCrystals:
    return describe(load_dataset("ionic_prototypes", split="test").crystals.select(range(0, 190, 5)))


def test_pymatgen_reads_the_same_crystal(crystals: SymmetricCrystals) -> None:
    matcher = StructureMatcher()
    texts = symmetrized_cif_texts(crystals)
    sizes = crystals.orbits.num_conventional_atoms.tolist()
    for text, original, size in zip(texts, crystals.plain().structures(), sizes, strict=True):
        again = Structure.from_str(text, fmt="cif")
        assert len(again) == size
        assert matcher.fit(again, original)


def test_ase_reads_the_same_atoms(crystals: SymmetricCrystals) -> None:
    sizes = crystals.orbits.num_conventional_atoms.tolist()
    for text, size in zip(symmetrized_cif_texts(crystals), sizes, strict=True):
        assert len(ase.io.read(io.StringIO(text), format="cif")) == size


def test_gemmi_reads_the_same_atoms(crystals: SymmetricCrystals) -> None:
    gemmi = pytest.importorskip("gemmi")
    sizes = crystals.orbits.num_conventional_atoms.tolist()
    for text, size in zip(symmetrized_cif_texts(crystals), sizes, strict=True):
        block = gemmi.cif.read_string(text).sole_block()
        assert len(gemmi.make_small_structure_from_block(block).get_all_unit_cell_sites()) == size


@pytest.mark.parametrize("number", [1, 2, 14, 62, 88, 141, 148, 166, 194, 221, 227, 230])
def test_the_operations_are_those_of_pymatgen_in_number(number: int) -> None:
    from pymatgen.symmetry.groups import SpaceGroup

    operations = operations_xyz(number)
    assert operations[0] == "x,y,z"
    assert len(set(operations)) == len(operations) == SpaceGroup.from_int_number(number).order
