"""What is in a picture: atoms, images on faces, edges, colours."""

import numpy as np
import pytest
import torch
from ase import Atoms
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.lattice import lattice_parameters, plane_spacings
from cdvae_kit.metrics.crystals import CrystalArrays, unusable
from cdvae_kit.visualization.crystals.projection import project
from cdvae_kit.visualization.crystals.scene import (
    FACE_TOLERANCE,
    Scene,
    corner_atom,
    element_color,
    element_radius,
    element_symbol,
    make_scene,
    one_crystal,
)
from cdvae_kit.visualization.crystals.vector_picture import conventional_cell, scene_of_arrays


def cubic(coords: list[list[float]], length: float = 4.0, numbers: list[int] | None = None) -> CrystalBatch:
    return CrystalBatch(
        torch.tensor(coords, dtype=torch.float64),
        length * torch.eye(3, dtype=torch.float64)[None],
        torch.tensor(numbers or [29] * len(coords)),
        torch.tensor([len(coords)]),
    )


@pytest.mark.parametrize(
    ("coords", "num_drawn"),
    [
        ([0.3, 0.4, 0.5], 1),  # inside
        ([0.0, 0.4, 0.5], 2),  # on a face
        ([0.0, 0.0, 0.5], 4),  # on an edge
        ([0.0, 0.0, 0.0], 8),  # on a corner
        ([0.999, 0.001, 0.999], 8),  # nearly on a corner
    ],
)
def test_an_atom_is_drawn_on_all_faces_edges_or_corners_alike(coords: list[float], num_drawn: int) -> None:
    scene = make_scene(cubic([coords]))
    assert len(scene.positions) == num_drawn
    assert int(scene.is_image.sum()) == num_drawn - 1


def test_a_line_between_two_atoms_is_painted_after_the_farther_and_before_the_nearer() -> None:
    scene = make_scene(cubic([[0.5, 0.2, 0.5], [0.5, 0.8, 0.5]], numbers=[29, 8]))
    # the eye looks along b, from below it
    seen = project(scene, (0.0, -90.0), 0.4)
    assert seen.order.tolist() == [1, 0] and seen.atoms[0, 2] > seen.atoms[1, 2]
    assert seen.radii.tolist() == [0.4 * element_radius(29), 0.4 * element_radius(8)]
    between, painted_before = seen.pieces(scene.positions[None])
    assert 0 < len(between) < 24 and set(painted_before.tolist()) == {1}
    beyond = scene.positions[1] + np.array([[[0.0, 0.5, 0.0], [0.0, 0.7, 0.0]]])
    assert set(seen.pieces(beyond)[1].tolist()) == {0}
    in_front = scene.positions[0] - np.array([[[0.0, 0.7, 0.0], [0.0, 0.9, 0.0]]])
    assert set(seen.pieces(in_front)[1].tolist()) == {2}


def test_images_differ_from_their_atom_by_lattice_vectors_and_lie_on_the_border(zoo: CrystalBatch) -> None:
    shifted = zoo.replace(frac_coords=zoo.frac_coords.where(zoo.frac_coords > 0.3, 0.0))
    for index in range(len(shifted)):
        scene = make_scene(shifted, index)
        atoms, images = scene.frac_coords[~scene.is_image], scene.frac_coords[scene.is_image]
        assert len(atoms) == int(shifted.num_atoms[index]) and len(images) > 0
        away = images[:, None] - atoms[None]
        assert (np.abs(away - np.round(away)).max(-1).min(-1) < 1e-12).all()
        spacings = plane_spacings(shifted.lattice[index : index + 1])[0].numpy()
        outside = np.maximum(-images, images - 1.0) * spacings
        assert outside.max() < FACE_TOLERANCE


def test_no_atom_is_drawn_twice_at_one_place(zoo: CrystalBatch) -> None:
    on_faces = zoo.replace(frac_coords=(4 * zoo.frac_coords).round() / 4)
    for index in range(len(zoo)):
        scene = make_scene(on_faces, index)
        atoms = scene.frac_coords[~scene.is_image]
        rows = np.concatenate([scene.frac_coords[scene.is_image], np.unique(atoms, axis=0)])
        distinct = {tuple(row) for row in np.unique(rows, axis=0).round(6).tolist()}
        # atoms of the zoo that the rounding has put on one place have images on one place too
        if len(np.unique(atoms, axis=0)) == len(atoms):
            assert len(distinct) == len(rows)


def test_without_images_the_atoms_of_the_cell_alone_are_drawn(zoo: CrystalBatch) -> None:
    for index, num_atoms in enumerate(zoo.num_atoms.tolist()):
        scene = make_scene(zoo, index, images=False)
        assert len(scene.positions) == num_atoms and not scene.is_image.any()


def test_the_nearness_to_a_face_is_measured_in_angstrom() -> None:
    inside = [[0.02, 0.5, 0.5]]
    assert len(make_scene(cubic(inside, length=4.0)).positions) == 2
    assert len(make_scene(cubic(inside, length=40.0)).positions) == 1


def test_a_cell_has_twelve_edges_of_its_own_lengths(zoo: CrystalBatch) -> None:
    for index in range(len(zoo)):
        lengths = np.linalg.norm(np.diff(make_scene(zoo, index).edges, axis=1)[:, 0], axis=-1)
        expected = lattice_parameters(zoo.lattice)[0][index].repeat(4).numpy()
        assert np.sort(lengths) == pytest.approx(np.sort(expected), abs=1e-9)


def test_a_turned_crystal_gives_the_same_scene(zoo: CrystalBatch) -> None:
    turn = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.3], [0.2, -1.0, 2.0], [0.5, 0.1, 1.0]], dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    turned = zoo.replace(lattice=zoo.lattice @ turn)
    for index in range(len(zoo)):
        assert make_scene(turned, index).positions == pytest.approx(make_scene(zoo, index).positions, abs=1e-9)


def test_a_strained_crystal_gives_another_scene(zoo: CrystalBatch) -> None:
    strained = zoo.replace(lattice=1.01 * zoo.lattice)
    difference = np.abs(make_scene(strained, 0, images=False).edges - make_scene(zoo, 0, images=False).edges)
    assert difference.max() > 0.01


def test_moving_an_atom_to_the_corner_moves_the_whole_crystal(zoo: CrystalBatch) -> None:
    for index in range(len(zoo)):
        atom = corner_atom(zoo, index)
        moved = make_scene(zoo, index, images=False, on_corner=atom).frac_coords
        assert moved[atom] == pytest.approx(np.zeros(3))
        assert moved.min() >= 0.0 and moved.max() <= 1.0
        shift = make_scene(zoo, index, images=False).frac_coords - moved
        assert (shift - shift[0]) == pytest.approx(np.round(shift - shift[0]), abs=1e-9)


def test_the_corner_goes_to_the_rarest_element_and_then_to_the_heaviest() -> None:
    perovskite = cubic([[0.1 * i, 0.2, 0.3] for i in range(5)], numbers=[8, 8, 22, 38, 8])
    assert corner_atom(perovskite) == 3


def test_every_element_has_a_colour_a_size_and_a_name() -> None:
    for number in range(119):
        assert len(element_color(number)) == 3 and all(0.0 <= part <= 1.0 for part in element_color(number))
        assert 0.2 < element_radius(number) < 3.0
        assert element_symbol(number)
    assert element_symbol(0) == "?"
    assert element_color(8) != element_color(26)


def test_structures_and_atoms_give_the_scene_of_their_batch() -> None:
    structure = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    atoms = Atoms("CsCl", cell=4.0 * np.eye(3), scaled_positions=np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), pbc=True)
    scenes: list[Scene] = [make_scene(one_crystal(crystal)) for crystal in (structure, atoms)]
    for scene in scenes:
        assert sorted(scene.atomic_numbers.tolist()) == [17] + [55] * 8


def test_a_batch_of_several_is_refused_where_one_is_drawn(zoo: CrystalBatch) -> None:
    with pytest.raises(ValueError, match=r"got a batch of 6; take one with batch\.select\(\[i\]\)"):
        one_crystal(zoo)


@pytest.mark.parametrize("field", ["frac_coords", "lattice"])
def test_a_crystal_that_is_not_finite_is_refused(field: str) -> None:
    crystal = cubic([[0.1, 0.2, 0.3]])
    getattr(crystal, field)[0] = float("nan")
    with pytest.raises(ValueError, match="crystal 0 has coordinates or a cell that are not finite"):
        make_scene(crystal)


# Bonds and the conventional cell


def arrays_of(structure: Structure) -> CrystalArrays:
    return CrystalArrays(
        structure.lattice.matrix, structure.frac_coords, np.array(structure.atomic_numbers, dtype=np.int64)
    )


def test_bonds_join_atoms_that_touch_and_no_others() -> None:
    # caesium chloride: the body's centre to the eight corners, 3.55 angstrom; edges of the cell are 4.1
    salt = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    bonds = scene_of_arrays(arrays_of(salt)).bonds
    lengths = np.linalg.norm(bonds[:, 1] - bonds[:, 0], axis=1)
    assert len(bonds) == 8 and lengths == pytest.approx(4.1 * 0.75**0.5)
    apart = Structure(Lattice.cubic(9.0), ["He", "He"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert scene_of_arrays(arrays_of(apart)).bonds.shape == (0, 2, 3)


def test_a_primitive_cell_is_drawn_as_the_conventional_one() -> None:
    rock = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    drawn = conventional_cell(arrays_of(rock.get_primitive_structure()))
    assert len(drawn.atomic_numbers) == 8
    np.testing.assert_allclose(drawn.lattice @ drawn.lattice.T, 5.64**2 * np.eye(3), atol=1e-6)


def test_a_crystal_without_symmetry_or_with_a_fault_is_drawn_as_it_is() -> None:
    generator = np.random.default_rng(2)
    skewed = CrystalArrays(np.eye(3) * 6 + 0.3, generator.random((5, 3)), np.array([6, 7, 8, 9, 14]))
    assert conventional_cell(skewed) is skewed
    broken = unusable("it could not be built")
    assert conventional_cell(broken) is broken
