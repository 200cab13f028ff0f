import pytest
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.periodic_images import shortest_distances


def brute_force(batch: CrystalBatch, own_images: bool, reach: int = 9) -> Tensor:
    """Every image in a block of (2 reach + 1)^3 cells, one crystal after the other."""
    cells = torch.cartesian_prod(*[torch.arange(-reach, reach + 1, dtype=torch.float64)] * 3)
    shortest = []
    for k in range(len(batch)):
        crystal = batch.select([k])
        frac, lattice = crystal.frac_coords.double(), crystal.lattice[0].double()
        difference = frac[None, :, None] - frac[:, None, None] + cells
        distances = (difference @ lattice).norm(dim=-1)
        itself = torch.eye(len(frac), dtype=torch.bool)[:, :, None]
        distances = distances.masked_fill(itself & (own_images is False), float("inf"))
        distances = distances.masked_fill(itself & (cells == 0).all(1), float("inf"))
        shortest.append(distances.min())
    return torch.stack(shortest)


@pytest.mark.parametrize("own_images", [True, False])
def test_the_shortest_distance_is_that_of_a_search_of_all_near_cells(zoo: CrystalBatch, own_images: bool) -> None:
    found = shortest_distances(zoo, own_images=own_images)
    torch.testing.assert_close(found, brute_force(zoo, own_images))


@pytest.mark.parametrize("own_images", [True, False])
def test_a_cell_far_from_reduced_has_the_same_shortest_distance(zoo: CrystalBatch, own_images: bool) -> None:
    change = torch.tensor([[1, 7, 3], [0, 1, -6], [0, 0, 1]], dtype=torch.float64)
    skewed = zoo.replace(lattice=change @ zoo.lattice, frac_coords=zoo.frac_coords @ torch.linalg.inv(change))
    expected = shortest_distances(zoo, own_images=own_images)
    torch.testing.assert_close(shortest_distances(skewed, own_images=own_images), expected)
    # the twenty-seven cells around are not enough here
    assert not torch.allclose(brute_force(skewed, own_images, reach=1), expected)


def test_the_densest_packing_of_spheres_is_within_reach() -> None:
    lattice = 1.8 * torch.tensor([[[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]])
    crystal = CrystalBatch(torch.full((1, 3), 0.2), lattice, torch.tensor([29]), torch.tensor([1]))
    torch.testing.assert_close(shortest_distances(crystal), torch.tensor([1.8 * 2.0**0.5]))


def test_an_atom_alone_has_no_distance_but_to_its_own_images(zoo: CrystalBatch) -> None:
    assert float(shortest_distances(zoo.select([0]), own_images=False)) == float("inf")
    torch.testing.assert_close(shortest_distances(zoo.select([0])), torch.tensor([2.5], dtype=torch.float64))


@pytest.mark.parametrize("own_images", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_on_top_of_each_other_are_at_distance_zero(dtype: torch.dtype, own_images: bool) -> None:
    crystal = CrystalBatch(
        torch.tensor([[0.123, 0.456, 0.789]] * 2, dtype=dtype),
        torch.diag(torch.tensor([3.0, 4.0, 5.0], dtype=dtype))[None],
        torch.tensor([1, 1]),
        torch.tensor([2]),
    )
    assert float(shortest_distances(crystal, own_images=own_images)) < 1e-6


def test_an_empty_batch_has_no_distances(zoo: CrystalBatch) -> None:
    assert shortest_distances(zoo.select([])).shape == (0,)
