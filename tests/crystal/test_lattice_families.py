"""What a crystal family leaves free of a lattice."""

import pytest
import torch

from cdvae_kit.crystal.lattice import lattice_from_log_parameters, lattice_parameters, log_parameters
from cdvae_kit.crystal.lattice_families import num_free_parameters, project_change, project_parameters
from cdvae_kit.crystal.wyckoff import FAMILIES
from cdvae_kit.seeding import make_generator
from tests.crystal.every_group import ALL_GROUPS, general_and_special, strain_of

EVERY_FAMILY = torch.arange(len(FAMILIES))


def projectors() -> torch.Tensor:
    """(6 families, 6, 6), float64: the columns are the projected unit changes."""
    unit = torch.eye(6, dtype=torch.float64)
    columns = [project_change(unit, torch.full((6,), int(family))) for family in EVERY_FAMILY]
    return torch.stack(columns).transpose(-1, -2)


def test_changes_are_projected_orthogonally_onto_what_is_free() -> None:
    found = projectors()
    torch.testing.assert_close(found @ found, found)
    torch.testing.assert_close(found.transpose(-1, -2), found)
    ranks = [int(torch.linalg.matrix_rank(one)) for one in found]
    assert ranks == [num_free_parameters(family) for family in range(6)] == [6, 4, 3, 2, 2, 1]


def test_projecting_parameters_twice_changes_nothing_more() -> None:
    generator = make_generator(1)
    wild = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    family = EVERY_FAMILY.repeat(10)
    for scale in (None, torch.tensor([0.3, 0.3, 0.3, 0.7, 0.7, 0.7], dtype=torch.float64)):
        once = project_parameters(wild, family, scale=scale)
        torch.testing.assert_close(project_parameters(once, family, scale=scale), once)
        # the control: in all families but the first something is not free
        assert bool(((once - wild).abs().amax(-1) > 1e-3)[family > 0].all())
        torch.testing.assert_close(once[family == 0], wild[family == 0])


def test_a_scale_is_that_of_the_numbers_and_not_of_the_cell() -> None:
    scale = torch.tensor([0.3, 0.3, 0.3, 0.7, 0.7, 0.7], dtype=torch.float64)
    wild = torch.randn(6, 6, generator=make_generator(2), dtype=torch.float64)
    scaled = project_parameters(wild / scale, EVERY_FAMILY, scale=scale)
    torch.testing.assert_close(scaled * scale, project_parameters(wild, EVERY_FAMILY))


@pytest.mark.parametrize(
    ("family", "equal", "angles"),
    [
        ("monoclinic", (), (90.0, None, 90.0)),
        ("orthorhombic", (), (90.0, 90.0, 90.0)),
        ("tetragonal", ((0, 1),), (90.0, 90.0, 90.0)),
        ("hexagonal", ((0, 1),), (90.0, 90.0, 120.0)),
        ("cubic", ((0, 1), (1, 2)), (90.0, 90.0, 90.0)),
    ],
)
def test_a_projected_cell_has_the_lengths_and_angles_of_its_family(
    family: str, equal: tuple[tuple[int, int], ...], angles: tuple[float | None, ...]
) -> None:
    wild = torch.randn(20, 6, generator=make_generator(3), dtype=torch.float64)
    projected = project_parameters(wild, torch.full((20,), FAMILIES.index(family)))
    lengths, found = lattice_parameters(lattice_from_log_parameters(projected))
    for i, j in equal:
        torch.testing.assert_close(lengths[:, i], lengths[:, j], rtol=1e-9, atol=0.0)
    for k, angle in enumerate(angles):
        if angle is not None:
            torch.testing.assert_close(found[:, k], torch.full_like(found[:, k], angle), rtol=0.0, atol=1e-6)
        else:
            assert float((found[:, k] - 90.0).abs().max()) > 5.0
    for i, j in {(0, 1), (1, 2), (0, 2)} - set(equal):
        if (i, j) == (0, 2) and len(equal) == 2:
            continue
        assert float((lengths[:, i] / lengths[:, j] - 1.0).abs().max()) > 0.05


def test_no_operation_of_any_group_strains_a_cell_of_its_family() -> None:
    crystals = general_and_special(seed=4)
    strains = [strain_of(crystals.lattice[i], number) for i, number in enumerate(ALL_GROUPS)]
    assert max(strains) < 1e-9
    # the control: a stretch along a direction of no symmetry
    stretch = torch.eye(3, dtype=torch.float64) + 0.05 * torch.tensor([[1.0, 0.3, 0.2]], dtype=torch.float64)
    strained = [strain_of(crystals.lattice[i] @ stretch, number) for i, number in enumerate(ALL_GROUPS)]
    assert min(strained[2:]) > 1e-3 and max(strained[:2]) < 1e-9


def test_the_nearest_cell_of_a_family_is_the_cell_itself_where_it_has_the_family() -> None:
    crystals = general_and_special(seed=5)
    orbits = crystals.orbits
    parameters = log_parameters(orbits.primitive_to_conventional(crystals.lattice))
    torch.testing.assert_close(project_parameters(parameters, orbits.family), parameters, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(
        crystals.in_family().lattice @ crystals.in_family().lattice.mT, crystals.lattice @ crystals.lattice.mT
    )
    strained = crystals.replace(lattice=crystals.lattice @ torch.diag(torch.tensor([1.05, 1.0, 0.97]).double()))
    back = strained.in_family()
    assert max(strain_of(back.lattice[i], number) for i, number in enumerate(ALL_GROUPS)) < 1e-9
