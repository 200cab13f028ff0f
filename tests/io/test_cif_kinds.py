"""Kinds of CIF that readers turn into another crystal: each is read right, or refused with both sides."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cdvae_kit.crystal.species import element_of_label, element_of_type, element_symbols
from cdvae_kit.io import read_crystals
from cdvae_kit.io.crystals.cif import CifCrystal, read_cif
from cdvae_kit.io.crystals.cif_grammar import GrammarError
from cdvae_kit.io.crystals.operations import Operations, operations_from_triplets
from cdvae_kit.io.crystals.orbits import positions_of

CUBIC = (5.0, 5.0, 5.0, 90.0, 90.0, 90.0)
HEXAGONAL = (13.0, 13.0, 7.4, 90.0, 90.0, 120.0)
P3M1 = ("x,y,z", "-y,x-y,z", "-x+y,-x,z", "-y,-x,z", "-x+y,y,z", "x,x-y,z")
BY_NUMBER = {number: symbol for symbol, number in element_symbols().items()}


def cif(
    sites: str,
    *,
    head: str = "",
    operations: tuple[str, ...] = (),
    cell: tuple[float, ...] = CUBIC,
    columns: tuple[str, ...] = ("label", "type_symbol", "fract_x", "fract_y", "fract_z"),
) -> str:
    lines = ["data_x", *([head] if head else [])]
    if operations:
        lines += ["loop_", "_space_group_symop_operation_xyz", *(f"'{operation}'" for operation in operations)]
    lines += [f"_cell_length_{axis} {x}" for axis, x in zip("abc", cell, strict=False)]
    lines += [f"_cell_angle_{name} {x}" for name, x in zip(("alpha", "beta", "gamma"), cell[3:], strict=True)]
    return "\n".join([*lines, "loop_", *(f"_atom_site_{name}" for name in columns), sites]) + "\n"


def formula(found: CifCrystal) -> dict[str, int]:
    return dict(Counter(BY_NUMBER[number] for number in found.atomic_numbers.tolist()))


SALT = "Cs1 Cs 0 0 0\nCl1 Cl 0.5 0.5 0.5"
SALT_FORMULA = {"Cs": 1, "Cl": 1}


def test_operations_that_are_cut_short_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the 5 listed operations are no group: .* is not listed"):
        read_cif(cif("O1 O 0.1 0.25 0.3", operations=P3M1[:-1], cell=HEXAGONAL))
    assert formula(read_cif(cif("O1 O 0.1 0.25 0.3", operations=P3M1, cell=HEXAGONAL))) == {"O": 6}


def test_operations_and_group_that_contradict_are_refused_and_taken_leniently_with_a_note() -> None:
    text = cif(SALT, head="_space_group_name_H-M_alt 'P m -3 m'", operations=("x,y,z",))
    with pytest.raises(ValueError, match=r"P 1 \(number 1\), and P m -3 m \(number 221\)"):
        read_cif(text)
    taken = read_cif(text, lenient=True)
    assert formula(taken) == SALT_FORMULA and "contradiction: " in taken.notes[0]


@pytest.mark.parametrize("symbol", ["P 1 21/c 1", "P 1 2_1/n 1", "P21/c"])
def test_operations_of_another_setting_than_the_full_symbol_are_refused(symbol: str) -> None:
    cell = (5.0, 6.0, 7.0, 90.0, 100.0, 90.0)
    operations = ("x,y,z", "-x,y+1/2,-z+1/2", "-x,-y,-z", "x,-y+1/2,z+1/2")
    text = cif("O1 O 0.1 0.2 0.3", head=f"_space_group_name_H-M_alt '{symbol}'", operations=operations, cell=cell)
    if "n" in symbol:
        with pytest.raises(ValueError, match="contradicts itself"):
            read_cif(text)
    else:
        assert formula(read_cif(text)) == {"O": 4}


def test_operations_with_another_origin_than_the_table_agree_with_a_plain_symbol() -> None:
    """Old papers shift the origin; the symbol does not fix it, and the operations do."""
    shifted = ("x,y,z", "-x+1/4,-y+1/2,-z")
    text = cif("O1 O 0.1 0.2 0.3", head="_space_group_name_H-M_alt 'P -1'", operations=shifted)
    np.testing.assert_allclose(read_cif(text).frac_coords[1], [0.15, 0.3, 0.7])


def test_a_cell_without_the_symmetry_of_its_group_is_refused() -> None:
    cell = (5.0, 5.0, 6.0, 90.0, 90.0, 90.0)
    with pytest.raises(ValueError, match=r"the cell \(5, 5, 6, 90, 90, 90\) does not have the symmetry of P m -3 m"):
        read_cif(cif(SALT, head="_space_group_name_H-M_alt 'P m -3 m'", cell=cell))


def test_decimal_operations_are_the_thirds_they_round() -> None:
    rounded = ("x,y,z", "-y,x-y,z+0.33", "-x+y,-x,z+0.6667")
    exact = ("x,y,z", "-y,x-y,z+1/3", "-x+y,-x,z+2/3")
    assert operations_from_triplets(rounded).same_as(operations_from_triplets(exact))
    assert operations_from_triplets(exact).number == 144


@pytest.mark.parametrize("text", ["x,y", "x,y,z,w", "x,y,q", "x,y,x", "x,y,z+", "1/0+x,y,z", "2x,y,z", "x y z", ""])
def test_what_is_no_operation_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="symmetry operation"):
        operations_from_triplets((text,))


def orbit_size(site: list[float], operations: Operations, unit: float) -> int:
    lattice = np.array([[13.0, 0, 0], [-6.5, 6.5 * 3**0.5, 0], [0, 0, 7.4]])
    return len(positions_of(np.array(site), operations, lattice, unit)[0])


@pytest.mark.parametrize("digits", [2, 3, 4, 5])
def test_a_rounded_site_on_a_mirror_has_half_the_positions(digits: int) -> None:
    operations = operations_from_triplets(P3M1)
    for x in np.linspace(0.05, 0.3, 11):
        site = [round(x, digits), round(2 * x, digits), 0.1]
        assert orbit_size(site, operations, 10.0**-digits) == 3, (digits, x)


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_a_site_cut_off_at_two_thirds_stands_on_the_axis(digits: int) -> None:
    third, two_thirds = (float(f"{x:.6f}"[: 2 + digits]) for x in (1 / 3, 2 / 3))
    assert orbit_size([two_thirds, third, 0.2], operations_from_triplets(P3M1), 10.0**-digits) == 1


def test_a_site_beside_the_mirror_keeps_all_its_positions() -> None:
    """The negative control: half an angstrom is told apart, however few the digits."""
    assert orbit_size([0.11, 0.26, 0.1], operations_from_triplets(P3M1), 0.01) == 6


@pytest.mark.parametrize("seed", range(5))
def test_the_number_of_positions_divides_that_of_the_operations(seed: int) -> None:
    from cdvae_kit.io.crystals.settings import settings_by_symbol

    named = settings_by_symbol("F d -3 m :2")
    assert named is not None
    operations, generator = named.settings[0].operations, np.random.default_rng(seed)
    for _ in range(40):
        site = generator.choice([0.0, 0.125, 0.25, 0.5, 0.37], 3) + generator.choice([0.0, 1e-3], 3)
        assert len(operations) % len(positions_of(site, operations, 8.0 * np.eye(3), 1e-3)[0]) == 0, (seed, site)


NO_ELEMENTS = {
    "tetrahedral sites": ("T", "T1", "T1o"),
    "water": ("WAT", "Wat2", "H2O", "H3O1", "D2O", "Ow"),
    "groups": ("OH", "Oh", "OH2", "NH4", "PO4", "CO3", "CH3", "R", "Me"),
    "vacancies": ("Va", "Va1", "VAC", "X", "Q2", "Z"),
    "kinds of metals": ("RE", "RE1", "Ln1", "TM", "M1", "A"),
    "marks behind an element": ("OA1",),
    "nothing": ("1", "?", ""),
}


@pytest.mark.parametrize("label", [label for labels in NO_ELEMENTS.values() for label in labels])
def test_a_label_that_is_no_element_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="does not say which element"):
        element_of_label(label)


ELEMENTS_OF_LABELS = {
    **dict.fromkeys(("O", "O1", "O(2)", "O*", "O1W"), "O"),
    **dict.fromkeys(("Fe1A", "FE2"), "Fe"),
    **dict.fromkeys(("Si_1", "si2"), "Si"),
    "C12B": "C",
    "D1": "H",
    "NA1": "Na",
    "CL1": "Cl",
    "W1": "W",
    "U": "U",
    "Re1": "Re",
    "Co2": "Co",
}


@pytest.mark.parametrize("label", ELEMENTS_OF_LABELS)
def test_a_label_that_begins_with_one_element_is_that_element(label: str) -> None:
    assert element_of_label(label) == element_symbols()[ELEMENTS_OF_LABELS[label]]


def test_a_label_in_capitals_is_settled_by_its_neighbours_or_the_formula() -> None:
    assert element_of_label("CA1", ["CA1", "O1"]) == 20
    with pytest.raises(ValueError, match="does not say"):
        element_of_label("CA1", ["CA1", "C2", "CB"])
    assert element_of_label("CA1", ["CA1", "C2"], frozenset({"C", "H"})) == 6
    assert element_of_label("OA1", ["OA1"], frozenset({"O", "Si"})) == 8


@pytest.mark.parametrize("symbol", ["NH4", "PO4", "OH", "H2O", "WAT", "RE", "X", "Va", "M", "CO", "HO", "Wat", "", "1"])
def test_a_type_that_is_a_group_or_nothing_is_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match="element"):
        element_of_type(symbol)


@pytest.mark.parametrize("symbol", ["Fe", "FE", "fe", "Fe3+", "Fe+3", "Fe2.5+", "Fe3", "Fe(3+)", "Fe0+", "Fe+"])
def test_a_type_is_an_element_then_charge_or_digits(symbol: str) -> None:
    assert element_of_type(symbol) == 26


def test_deuterium_and_tritium_are_hydrogen_and_said() -> None:
    found = read_cif(cif("D1 D 0 0 0\nT1 T 0.5 0.5 0.5\nDy1 Dy 0.5 0 0"))
    assert formula(found) == {"H": 2, "Dy": 1} and found.notes == ("deuterium and tritium (D, T) are read as hydrogen",)
    assert read_cif(cif("Dy1 Dy 0 0 0")).notes == ()


@pytest.mark.parametrize("null", [".", "?"])
def test_an_occupancy_that_is_not_stated_is_a_full_site(null: str) -> None:
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    assert formula(read_cif(cif(f"Cs1 Cs 0 0 0 {null}\nCl1 Cl 0.5 0.5 0.5 1.0", columns=columns))) == SALT_FORMULA


def test_a_null_type_leaves_the_element_to_the_label() -> None:
    assert formula(read_cif(cif("Cs1 ? 0 0 0\nCl1 . 0.5 0.5 0.5"))) == SALT_FORMULA


def test_an_angle_that_does_not_apply_is_the_dictionarys_right_angle() -> None:
    found = read_cif(cif(SALT).replace("_cell_angle_beta 90.0", "_cell_angle_beta ."))
    np.testing.assert_allclose(found.lattice, 5.0 * np.eye(3), atol=1e-12)
    assert "_cell_angle_beta is not stated" in found.notes[0]
    with pytest.raises(ValueError, match="_cell_angle_beta is unknown"):
        read_cif(cif(SALT).replace("_cell_angle_beta 90.0", "_cell_angle_beta ?"))


def test_dummy_sites_are_left_out_and_said() -> None:
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "calc_flag")
    found = read_cif(cif("Cs1 Cs 0 0 0 d\nCl1 Cl 0.5 0.5 0.5 calc\nX1 X ? ? ? dum", columns=columns))
    assert formula(found) == SALT_FORMULA and "1 dummy sites" in found.notes[0]


def test_names_keywords_and_dots_have_no_case() -> None:
    text = cif(SALT, head="_space_group_name_H-M_alt 'P m -3 m'")
    for spelled in (
        text.upper().replace("DATA_X", "Data_x"),
        text.replace("_atom_site_", "_atom_site.").replace("_cell_", "_CELL."),
        text.replace("\n", "\r\n"),
        text.replace("\n", "\r"),
        text.replace("'P m -3 m'", "\n;P m -3 m\n;"),
        text.replace("'P m -3 m'", "P m -3 m"),
        text.replace("data_x", "data_x # caf\u00e9\n_publ_author_name \u00c9va"),
        text.replace("0.5 0.5 0.5", "0.5000(12) +.5 5.0E-1"),
        text.replace("data_x", "data_x\n_note\n;\ndata_y\nloop_\n_cell_length_a\n9\n;"),
    ):
        assert formula(read_cif(spelled)) == SALT_FORMULA, spelled


@pytest.mark.parametrize("cell", [CUBIC, HEXAGONAL, (5.0, 6.0, 7.0, 80.0, 95.0, 110.0)])
def test_cartesian_sites_are_turned_into_fractions(cell: tuple[float, ...]) -> None:
    from ase.geometry import cellpar_to_cell

    expected = np.array([[0.0, 0.0, 0.0], [0.25, 0.4, 0.65]])
    # a along x and b in the xy plane, as ASE has it
    cartesian = expected @ cellpar_to_cell(cell)
    sites = "\n".join(
        f"{name}1 {name} {x:.8f} {y:.8f} {z:.8f}" for name, (x, y, z) in zip(("Cs", "Cl"), cartesian, strict=True)
    )
    columns = ("label", "type_symbol", "Cartn_x", "Cartn_y", "Cartn_z")
    found = read_cif(cif(sites, columns=columns, cell=cell))
    np.testing.assert_allclose(found.frac_coords, expected, atol=1e-7)
    assert "Cartesian" in found.notes[0]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("_chemical_formula_sum 'Cs Cl2'", "the formula is 'Cs Cl2', and the cell holds Cl1 Cs1"),
        ("_chemical_formula_sum 'Cs Cl H'", "the formula is 'Cs Cl H'"),
        ("_chemical_formula_sum 'Cs Cl'\n_cell_formula_units_Z 4", "1 times the formula where Z is 4"),
        ("_cell_volume 250", "stated volume is 250 cubic angstrom, and the cell has 125"),
        ("_exptl_crystal_density_diffrn 4.5", "the stated density is 4.5 g/cm3, and the crystal has 2.236"),
    ],
)
def test_a_crystal_that_does_not_fit_its_file_is_refused(head: str, message: str) -> None:
    if "Z 4" in head:
        # programs that write the formula of the cell leave Z alone
        head = head.replace("'Cs Cl'", "'Cs2 Cl2'")
        message = "0.5 times the formula where Z is 4"
    with pytest.raises(ValueError, match=message):
        read_cif(cif(SALT, head=head))
    assert formula(read_cif(cif(SALT, head=head), lenient=True)) == SALT_FORMULA


def test_a_number_that_no_group_has_is_refused() -> None:
    with pytest.raises(ValueError, match="numbered from 1 to 230, and the file gives '231'"):
        read_cif(cif(SALT, head="_space_group_IT_number 231"))


def test_statements_that_fit_are_taken() -> None:
    head = "_chemical_formula_sum 'Cs Cl'\n_cell_formula_units_Z 1\n_cell_volume 125.0(3)\n"
    assert read_cif(cif(SALT, head=head + "_exptl_crystal_density_diffrn 2.236")).notes == ()


def test_multiplicities_are_held_against_the_operations() -> None:
    columns = ("label", "type_symbol", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z")
    sites = "Na1 Na 4 0 0 0\nCl1 Cl 4 0.5 0.5 0.5"
    good = cif(sites, head="_space_group_name_H-M_alt 'F m -3 m'", columns=columns)
    assert formula(read_cif(good)) == {"Na": 4, "Cl": 4}
    with pytest.raises(ValueError, match="multiplicity of the site Na1 is stated as 4, and the operations give 1"):
        read_cif(cif(sites, columns=columns))


def test_an_origin_that_the_symbol_leaves_open_is_settled_by_the_formula_or_refused() -> None:
    open_head = "_space_group_name_H-M_alt 'F d -3 m'"
    diamond = cif("C1 C 0.125 0.125 0.125", head=open_head)
    with pytest.raises(ValueError, match=r"fits several settings \(F d -3 m:1, F d -3 m:2\), and nothing"):
        read_cif(diamond)
    settled = read_cif(diamond.replace("data_x", "data_x\n_chemical_formula_sum C\n_cell_formula_units_Z 8"))
    assert formula(settled) == {"C": 8} and "taken for F d -3 m:2" in settled.notes[0]


def test_sites_on_one_place_under_the_operations_are_refused() -> None:
    with pytest.raises(ValueError, match="the sites Na1 and Na2 stand on one place under the operations"):
        read_cif(cif("Na1 Na 0 0 0\nNa2 Na 0 0.5 0.5", head="_space_group_name_H-M_alt 'F m -3 m'"))


def test_with_lenient_each_place_holds_one_atom() -> None:
    """A file that lists all atoms and names the group too: each atom is an image of the first of its kind."""
    sites = "\n".join(f"Na{i} Na {x} {y} {z}" for i, (x, y, z) in enumerate(((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5))))
    head = "_space_group_name_H-M_alt 'F m -3 m'\n_chemical_formula_sum Na"
    found = read_cif(cif(sites, head=head), lenient=True)
    assert formula(found) == {"Na": 4} and "2 such sites are left out" in found.notes[0]


def test_symbols_that_are_not_understood_are_said_where_the_operations_are_listed() -> None:
    text = cif("O1 O 0.1 0.2 0.3", head="_space_group_name_H-M_alt 'P foo'", operations=("x,y,z", "-x,-y,-z"))
    assert read_cif(text).notes == ("the space-group symbol 'P foo' is not understood, and not compared",)
    with pytest.raises(ValueError, match="the space group 'P foo' is not understood and no operations are listed"):
        read_cif(cif("O1 O 0.1 0.2 0.3", head="_space_group_name_H-M_alt 'P foo'"))


def test_columns_may_stand_in_any_order() -> None:
    columns = ("fract_z", "type_symbol", "fract_x", "label", "fract_y")
    found = read_cif(cif("0.3 O 0.1 O1 0.2", columns=columns))
    np.testing.assert_allclose(found.frac_coords, [[0.1, 0.2, 0.3]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_x\n_a 'open\n", "is no CIF at line 2: unterminated 'string'"),
        ("data_x\nloop_\n_a\n_b\n1 2 3\n", "is no CIF at line 2: Wrong number of values in loop"),
        ("data_x\n_a 1\n_A 2\n", "is no CIF at line 3: duplicate tag _A"),
        ("data_x\n_a\n_b 2\n", "is no CIF at line 2: _a has no value"),
    ],
)
def test_a_text_that_is_no_cif_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        read_cif(text)


def test_the_line_is_that_of_the_file(tmp_path: Path) -> None:
    broken = cif(SALT).replace("0.5 0.5 0.5", "0.5 0.5")
    (tmp_path / "two.cif").write_text("# a journal\n" + cif(SALT) + broken)
    (failure,) = read_crystals(tmp_path / "two.cif").failures
    assert "is no CIF at line 24" in failure.reason


def test_magnetic_operations_are_those_of_the_atoms() -> None:
    head = (
        "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,-1\n"
        "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\nx+1/2,y+1/2,z+1/2,-1"
    )
    assert formula(read_cif(cif("Fe1 Fe 0.1 0.2 0.3", head=head))) == {"Fe": 4}


def test_notes_come_with_the_result(tmp_path: Path) -> None:
    (tmp_path / "d.cif").write_text(cif("D1 D 0 0 0"))
    (note,) = read_crystals(tmp_path / "d.cif").notes
    assert str(note).endswith("d.cif: deuterium and tritium (D, T) are read as hydrogen")


def test_a_contradiction_is_a_note_with_lenient_and_a_failure_without(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(cif(SALT, head="_cell_volume 250"))
    (tmp_path / "b.cif").write_text(cif(SALT))
    assert "contradicts itself" in read_crystals(tmp_path).failures[0].reason
    taken = read_crystals(tmp_path, lenient=True)
    assert taken.failures == [] and "contradiction: the stated volume" in taken.notes[0].reason
