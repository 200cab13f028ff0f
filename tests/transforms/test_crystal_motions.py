"""Symmetries of a crystal's description and the motion of atoms: against pymatgen, distances, volumes and counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.lattice import volume
from cdvae_kit.graph import neighbor_list
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import IndexedDraws, Transform
from cdvae_kit.transforms.crystal_motions import (
    AtomDisplacement,
    AtomPermutation,
    AtomScatter,
    CrystalRotation,
    OriginShift,
    Supercell,
    hermite_normal_forms,
)

ALL: list[Callable[[], Transform[CrystalBatch]]] = [
    CrystalRotation,
    OriginShift,
    AtomPermutation,
    lambda: AtomDisplacement(0.1),
    AtomScatter,
    Supercell,
]
NAMES = ["rotation", "origin", "order", "displacement", "scatter", "supercell"]
every = pytest.mark.parametrize("make", ALL, ids=NAMES)


def distances_of(batch: CrystalBatch, cutoff: float = 5.0) -> list[Tensor]:
    """Sorted distances up to the cutoff of each crystal, an atom."""
    graph = neighbor_list(batch, cutoff)
    found = graph.distances(batch).split(graph.num_edges.tolist())
    return [d.sort().values for d in found]


def same(a: CrystalBatch, b: CrystalBatch, tolerance: float = 1e-6) -> bool:
    shift = a.frac_coords - b.frac_coords
    return (
        torch.equal(a.num_atoms, b.num_atoms)
        and torch.equal(a.atomic_numbers, b.atomic_numbers)
        and bool((shift - shift.round()).abs().max() < tolerance)
        and torch.allclose(a.lattice, b.lattice, atol=tolerance)
    )


@every
def test_magnitude_zero_is_the_identity_and_one_is_not(make: Any, zoo: CrystalBatch) -> None:
    lattice, frac_coords = zoo.lattice.clone(), zoo.frac_coords.clone()
    assert same(make()(zoo, magnitude=0.0, generator=make_generator(0)), zoo)
    changed = make()(zoo, generator=make_generator(0))
    assert not torch.equal(changed.num_atoms, zoo.num_atoms) or not same(changed, zoo)
    assert torch.equal(zoo.lattice, lattice) and torch.equal(zoo.frac_coords, frac_coords)


@every
def test_parameters_have_a_row_a_crystal_and_decide_the_result(make: Any, zoo: CrystalBatch) -> None:
    transform = make()
    params = transform.sample(zoo, generator=make_generator(3))
    assert params and all(len(value) == len(zoo) for value in params.values())
    whole = transform.apply(zoo, params)
    row = transform.apply(zoo.select([2]), {key: value[2:3] for key, value in params.items()})
    assert same(row, whole.select([2]), 1e-9)


@every
def test_a_crystal_drawn_by_index_does_not_depend_on_its_batch(make: Any, zoo: CrystalBatch) -> None:
    whole = make()(zoo, generator=IndexedDraws(7, torch.arange(len(zoo))))
    some = torch.tensor([5, 1])
    assert same(make()(zoo.select(some), generator=IndexedDraws(7, some)), whole.select(some), 1e-9)


@every
def test_none_minds_a_batch_without_crystals(make: Any, zoo: CrystalBatch) -> None:
    assert len(make()(zoo.select([]), generator=make_generator(0))) == 0


@pytest.mark.parametrize("make", ALL[:3], ids=NAMES[:3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_symmetry_keeps_all_distances(make: Any, zoo: CrystalBatch, dtype: torch.dtype) -> None:
    batch = zoo.replace(frac_coords=zoo.frac_coords.to(dtype), lattice=zoo.lattice.to(dtype))
    changed = make()(batch, generator=make_generator(1))
    assert changed.lattice.dtype == dtype
    for before, after in zip(distances_of(batch), distances_of(changed), strict=True):
        assert torch.allclose(before, after, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_a_displacement_does_not_keep_distances(zoo: CrystalBatch) -> None:
    two = zoo.select([4])
    before, after = (
        distances_of(two, 4.0)[0],
        distances_of(AtomDisplacement(0.1)(two, generator=make_generator(0)), 4.0)[0],
    )
    assert len(before) != len(after) or not torch.allclose(before, after, atol=1e-2)


def test_rotations_are_proper_and_point_everywhere_alike() -> None:
    one = CrystalBatch(torch.zeros(1, 3), torch.eye(3)[None], torch.tensor([84]), torch.tensor([1]))
    many = concatenate([one] * 4000)
    turn = CrystalRotation().sample(many, generator=make_generator(0))["rotation"]
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand_as(turn), atol=1e-5)
    assert torch.allclose(torch.linalg.det(turn), torch.ones(len(turn)), atol=1e-5)
    # of the Haar measure: entries have mean 0 and square 1/3, the trace has mean 0 and square 1
    assert turn.mean(0).abs().max() < 0.03 and (turn.square().mean(0) - 1.0 / 3.0).abs().max() < 0.02
    trace = turn.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(trace.mean())) < 0.05 and float(trace.square().mean()) == pytest.approx(1.0, abs=0.07)


def test_an_order_is_any_and_moves_whole_atoms(zoo: CrystalBatch) -> None:
    many = concatenate([zoo.select([2])] * 300)
    mixed = AtomPermutation()(many, generator=make_generator(0))
    first = mixed.atomic_numbers.reshape(-1, 3)[:, 0]
    assert float((first == 14).double().mean()) == pytest.approx(1 / 3, abs=0.08)
    atoms = torch.cat([mixed.frac_coords, mixed.atomic_numbers[:, None]], 1).reshape(-1, 3, 4)
    known = torch.cat([many.frac_coords, many.atomic_numbers[:, None]], 1).reshape(-1, 3, 4)
    assert torch.equal(atoms[:, :, 0].sort(1).values, known[:, :, 0].sort(1).values)
    paired = {tuple(row) for row in known[0].tolist()}
    assert all(tuple(row) in paired for row in atoms.reshape(-1, 4).tolist())


def test_displacements_have_the_deviation_they_say() -> None:
    cell = torch.tensor([[[9.0, 0.0, 0.0], [3.0, 7.0, 0.0], [1.0, -2.0, 8.0]]], dtype=torch.float64)
    middle = torch.full((1000, 3), 0.5, dtype=torch.float64)
    big = CrystalBatch(middle, cell, torch.full((1000,), 6), torch.tensor([1000]))
    moved = AtomDisplacement(0.2)(big, generator=make_generator(0)).cart_coords - big.cart_coords
    assert moved.std(0).tolist() == pytest.approx([0.2] * 3, rel=0.08) and moved.mean(0).abs().max() < 0.03
    covariance = moved.T.cov()
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.005


def test_scattered_atoms_are_anywhere_and_as_many_crystals_as_the_magnitude_says() -> None:
    atoms = torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8]]).repeat(4000, 1)
    pairs = CrystalBatch(atoms, torch.eye(3).expand(4000, 3, 3), torch.ones(8000).long(), torch.full((4000,), 2))
    scattered = AtomScatter()(pairs, magnitude=0.25, generator=make_generator(0)).frac_coords
    moved = (scattered - atoms).abs().amax(1) > 1e-6
    assert torch.equal(moved[::2], moved[1::2]) and moved.double().mean().item() == pytest.approx(0.25, abs=0.02)
    places = scattered[moved] % 1.0
    # uniform: mean 1/2, variance 1/12, and nothing of the partner in it
    assert torch.allclose(places.mean(0), torch.full((3,), 0.5), atol=0.03)
    assert torch.allclose(places.var(0), torch.full((3,), 1.0 / 12.0), atol=0.006)
    assert torch.corrcoef(places[:, 0].reshape(-1, 2).T)[0, 1].abs() < 0.1


@pytest.mark.parametrize("num_cells", [1, 2, 3, 4])
def test_a_supercell_is_the_same_crystal_in_pymatgens_eyes(num_cells: int, zoo: CrystalBatch) -> None:
    small = zoo.select([0, 2, 5])
    large = Supercell(num_cells)(small, generator=make_generator(num_cells))
    assert torch.equal(large.num_atoms, num_cells * small.num_atoms)
    assert torch.allclose(volume(large.lattice), num_cells * volume(small.lattice))
    matcher = StructureMatcher(ltol=1e-4, stol=1e-4, angle_tol=1e-2, primitive_cell=True, scale=False)
    for a, b in zip(small.structures(), large.structures(), strict=True):
        assert matcher.fit(a, b), f"{num_cells} cells of {a.formula}"


def test_a_supercell_is_made_as_pymatgen_makes_it(zoo: CrystalBatch) -> None:
    forms = hermite_normal_forms(6)
    batch = concatenate([zoo.select([3])] * len(forms))
    large = Supercell(6).apply(batch, {"cell": forms})
    for form, ours in zip(forms.tolist(), large.structures(), strict=True):
        theirs = zoo.select([3]).structures()[0].make_supercell(form, in_place=False, to_unit_cell=True)
        assert ours.lattice.matrix == pytest.approx(theirs.lattice.matrix, abs=1e-9)
        gap = ours.lattice.get_all_distances(ours.frac_coords, theirs.frac_coords)
        alike = [[a == b for b in theirs.species] for a in ours.species]
        assert ((gap < 1e-6) & alike).sum(1).tolist() == [1] * len(ours)


def test_hermite_normal_forms_are_all_and_each_once() -> None:
    # the number of sublattices of index n (OEIS A001001)
    assert [len(hermite_normal_forms(n)) for n in range(1, 9)] == [1, 7, 13, 35, 31, 91, 57, 155]
    for n in (4, 6):
        forms = hermite_normal_forms(n).double()
        assert torch.allclose(torch.linalg.det(forms), torch.full((len(forms),), float(n), dtype=torch.float64))
        # two bases span the same lattice where one over the other is whole
        ratio = forms[:, None] @ torch.linalg.inv(forms)[None]
        whole = (ratio - ratio.round()).abs().amax((2, 3)) < 1e-9
        assert int(whole.sum()) == len(forms)


def test_properties_and_names_come_along(zoo: CrystalBatch) -> None:
    named = zoo.replace(properties={"gap": torch.arange(6.0)}, material_ids=list("abcdef"))
    large = Supercell()(named, generator=make_generator(0))
    assert large.properties["gap"].tolist() == list(range(6)) and large.material_ids == list("abcdef")


def test_a_thousand_atoms_and_one(zoo: CrystalBatch) -> None:
    big = Supercell(8)(Supercell(8)(zoo.select([4, 0]), generator=make_generator(0)), generator=make_generator(1))
    assert big.num_atoms.tolist() == [24 * 64, 64]
    mixed = AtomPermutation()(big, generator=make_generator(2))
    assert torch.equal(mixed.atomic_numbers.sort().values, big.atomic_numbers.sort().values)
    assert torch.equal(mixed.batch.bincount(), big.num_atoms)


@pytest.mark.parametrize(
    "make", [lambda: AtomDisplacement(-0.1), lambda: AtomDisplacement(math.nan), lambda: Supercell(0)]
)
def test_laws_without_sense_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        make()


@pytest.mark.parametrize("rank", [1, 2])
def test_labels_in_the_frame_of_the_laboratory_turn_with_the_crystal(zoo: CrystalBatch, rank: Any) -> None:
    def label(batch: CrystalBatch) -> Tensor:
        # of the cell: a vector, and the tensor that it makes with another one
        first, second = batch.lattice[:, 0], batch.lattice[:, 1]
        return first if rank == 1 else first[:, :, None] * second[:, None]

    turn = CrystalRotation(target_rank=rank)
    params = turn.sample(zoo, generator=make_generator(0))
    turned = label(turn.apply(zoo, params))
    assert torch.allclose(turn.act_on_target(label(zoo), params), turned, atol=1e-5)
    # the other way round is another rotation, and a scalar stays
    back = {"rotation": params["rotation"].transpose(-1, -2)}
    assert not torch.allclose(turn.act_on_target(label(zoo), back), turned, atol=0.1)
    assert torch.equal(CrystalRotation().act_on_target(label(zoo), params), label(zoo))


def test_labels_of_another_rank_are_refused(zoo: CrystalBatch) -> None:
    turn = CrystalRotation(target_rank=2)
    params = turn.sample(zoo, generator=make_generator(0))
    for label in (torch.zeros(len(zoo), 3), torch.zeros(len(zoo) + 1, 3, 3)):
        with pytest.raises(ValueError, match="labels of rank 2"):
            turn.act_on_target(label, params)
    with pytest.raises(ValueError, match="rank 0, 1 or 2"):
        CrystalRotation(target_rank=3)  # type: ignore[arg-type]
