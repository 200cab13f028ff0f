"""The table of Wyckoff positions against spglib's operations, and against itself."""

from functools import cache
from itertools import groupby

import numpy as np
import pytest
import spglib
import torch

from cdvae_kit.crystal.symmetry import crystal_system
from cdvae_kit.crystal.wyckoff import (
    FAMILIES,
    NUM_POSITIONS,
    all_positions,
    family_of,
    parse_coordinates,
    position_of,
    primitive_operations,
    wyckoff_positions,
    wyckoff_table,
)
from tests.crystal.every_group import ALL_GROUPS

GENERIC = np.array([0.1137, 0.2371, 0.4093])


@cache
def halls() -> dict[int, dict[str, int]]:
    """For each group spglib's numbers of its settings, by the choice that they are."""
    found: dict[int, dict[str, int]] = {}
    for hall in range(1, 531):
        about = spglib.get_spacegroup_type(hall)
        found.setdefault(about.number, {}).setdefault(about.choice, hall)
    return found


@cache
def spglib_operations(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the conventional cell in the standard setting: unique axis b, hexagonal axes, the second origin."""
    choices = halls()[number]
    chosen = next((choices[name] for name in ("2", "H", "b1", "b") if name in choices), min(choices.values()))
    found = spglib.get_symmetry_from_database(chosen)
    return found["rotations"].astype(float), found["translations"]


def distinct(points: np.ndarray) -> np.ndarray:
    """The points that differ by more than a lattice vector."""
    apart = points[:, None] - points[None]
    alike = np.abs(apart - np.round(apart)).max(-1) < 1e-6
    return points[alike.argmax(1) == np.arange(len(points))]


def test_there_are_1731_positions_in_230_groups() -> None:
    positions = all_positions()
    assert len(positions) == NUM_POSITIONS == 1731
    assert [position.index for position in positions] == list(range(1731))
    assert [number for number, _ in groupby(positions, lambda position: position.space_group)] == list(ALL_GROUPS)


def test_letters_go_from_a_on_and_the_general_position_comes_last() -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyzA"
    for number in ALL_GROUPS:
        positions = wyckoff_positions(number)
        assert "".join(position.letter for position in positions) == alphabet[: len(positions)], number
        assert positions[-1].num_free == 3 and positions[-1].primitive_multiplicity == max(
            position.primitive_multiplicity for position in positions
        ), number


def test_the_atoms_of_every_position_are_the_orbit_of_its_first_point_under_the_operations_of_spglib() -> None:
    table = wyckoff_table(dtype=torch.float64)
    for number in ALL_GROUPS:
        rotations, translations = spglib_operations(number)
        to_conventional = table.centring[number].numpy().T
        for position in wyckoff_positions(number):
            matrix, offset = parse_coordinates(position.coordinates)
            expected = distinct((rotations @ (matrix @ GENERIC + offset) + translations) % 1.0)
            assert len(expected) == position.multiplicity, position
            rows = slice(table.first_entry[position.index], table.first_entry[position.index] + len(expected))
            rows = slice(rows.start, rows.start + position.primitive_multiplicity)
            primitive = table.maps[rows].numpy() @ GENERIC + table.offsets[rows].numpy()
            ours = primitive @ to_conventional.T
            apart = ours[:, None] - expected[None]
            assert np.abs(apart - np.round(apart)).max(-1).min(-1).max() < 1e-6, position
            # no two of them are one atom of the primitive cell
            assert len(distinct(primitive)) * int(table.order[number]) == position.multiplicity, position


def test_positions_of_another_origin_would_be_seen() -> None:
    """The control of the test before it: the first origin of the diamond structure is not the second."""
    first = spglib.get_symmetry_from_database(525)
    assert spglib.get_spacegroup_type(525).choice == "1"
    matrix, offset = parse_coordinates(position_of(227, "a").coordinates)
    images = first["rotations"] @ (matrix @ GENERIC + offset) + first["translations"]
    assert len(distinct(images % 1.0)) != position_of(227, "a").multiplicity


@pytest.mark.parametrize("shift", [0.0, 0.03])
def test_the_atoms_of_every_position_are_closed_under_the_operations_of_the_group(shift: float) -> None:
    """And with one of them moved, the control, they are not."""
    table = wyckoff_table(dtype=torch.float64)
    for position in all_positions():
        rotations, translations = primitive_operations(position.space_group)
        rows = slice(table.first_entry[position.index], None)
        maps = table.maps[rows][: position.primitive_multiplicity].numpy()
        atoms = maps @ GENERIC + table.offsets[rows][: position.primitive_multiplicity].numpy()
        atoms[0] += shift * np.array([1.0, 0.7, 0.4])
        images = np.einsum("gij,nj->gni", rotations, atoms) + translations[:, None]
        apart = images[:, :, None] - atoms
        furthest = np.abs(apart - np.round(apart)).max(-1).min(-1).max()
        # one atom alone may move as its parameters do
        if shift == 0.0 or position.primitive_multiplicity > 1:
            assert (furthest < 1e-6) == (shift == 0.0), position


def test_the_pull_of_an_atom_undoes_its_map_where_something_is_free() -> None:
    table = wyckoff_table(dtype=torch.float64)
    entries = torch.repeat_interleave(torch.arange(NUM_POSITIONS), table.multiplicity)
    assert len(entries) == len(table.maps)
    torch.testing.assert_close(table.pulls @ table.maps, torch.diag_embed(table.is_free[entries].double()))
    first = table.first_pulls @ table.maps[table.first_entry]
    torch.testing.assert_close(first, torch.diag_embed(table.is_free.double()))
    assert torch.equal(table.is_free.sum(-1), torch.tensor([position.num_free for position in all_positions()]))


def test_a_group_is_polar_along_as_many_axes_as_its_rotations_leave_on_average() -> None:
    table = wyckoff_table()
    for number in ALL_GROUPS:
        rotations, _ = primitive_operations(number)
        assert int(table.is_polar[number].sum()) == round(np.trace(rotations.mean(0))), number
    assert table.is_polar[[1, 2, 4, 6, 75, 146, 186, 198]].long().tolist() == [
        *([1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]),
        *([0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]),
    ]


def test_the_operations_of_a_primitive_cell_are_those_of_the_conventional_one_over_its_centring() -> None:
    table = wyckoff_table(dtype=torch.float64)
    for number in ALL_GROUPS:
        rotations, translations = primitive_operations(number)
        assert len(rotations) * int(table.order[number]) == len(spglib_operations(number)[0]), number
        assert np.allclose(rotations[0], np.eye(3)) and np.allclose(translations[0], 0.0), number
        assert np.allclose(rotations, np.round(rotations)), number
        assert float(torch.det(table.centring[number])) * int(table.order[number]) == pytest.approx(1.0), number


def test_a_family_holds_the_groups_of_its_crystal_systems() -> None:
    for number in ALL_GROUPS:
        system = crystal_system(number)
        assert FAMILIES[family_of(number)] == ("hexagonal" if system == "trigonal" else system), number


def test_a_point_is_read_from_its_coordinates() -> None:
    matrix, offset = parse_coordinates("x-y, -z+2/3, 1/4")
    assert matrix.tolist() == [[1, -1, 0], [0, 0, -1], [0, 0, 0]]
    assert offset.tolist() == pytest.approx([0.0, 2 / 3, 0.25])


def test_groups_and_letters_that_there_are_not_are_refused_with_those_that_there_are() -> None:
    for number in (0, 231):
        with pytest.raises(ValueError, match=f"numbered from 1 to 230, got {number}"):
            wyckoff_positions(number)
    with pytest.raises(ValueError, match="group 2 has the Wyckoff letters abcdefghi, got 'j'"):
        position_of(2, "j")
