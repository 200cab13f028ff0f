"""Every setting of the International Tables is read as what it is, or refused: spglib's database is the oracle.

The reader's own table is gemmi's. Each file has one atom on a general position and no operations, so that the crystal
is right if and only if the operations are.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import spglib

from cdvae_kit.io.crystals.cif import CifError, read_cif
from cdvae_kit.io.crystals.symmetry import SymmetryError

SITE = np.array([0.1237, 0.2371, 0.3919])


class Known(NamedTuple):
    """A setting as spglib's database has it: operations, names, a cell that they keep."""

    number: int
    full: str
    short: str
    choice: str
    hall: str
    images: np.ndarray
    cell: tuple[float, ...]


@cache
def known_settings() -> list[Known]:
    known = []
    for hall_number in range(1, 531):
        kind = spglib.get_spacegroup_type(hall_number)
        operations = spglib.get_symmetry_from_database(hall_number)
        images = (operations["rotations"] @ SITE + operations["translations"]) % 1.0
        full = kind.international.split(" = ")[1] if 3 <= kind.number <= 15 else kind.international
        # the only one of its settings whose e-glide the database names by a letter
        full = "B b e b" if full == "B b c b" else full
        cell = cell_of(kind.number, kind.choice)
        known.append(Known(kind.number, full, kind.international_short, kind.choice, kind.hall_symbol, images, cell))
    return known


def cell_of(number: int, choice: str) -> tuple[float, ...]:
    if number <= 2:
        return (9.1, 10.3, 11.7, 83.0, 97.0, 104.0)
    if number <= 15:
        axis = choice.lstrip("-")[0]
        return (9.1, 10.3, 11.7, *(101.0 if axis == name else 90.0 for name in "abc"))
    if number <= 74:
        return (9.1, 10.3, 11.7, 90.0, 90.0, 90.0)
    if number <= 142:
        return (9.1, 9.1, 11.7, 90.0, 90.0, 90.0)
    if choice == "R":
        return (9.1, 9.1, 9.1, 77.0, 77.0, 77.0)
    return (9.1, 9.1, 11.7, 90.0, 90.0, 120.0) if number <= 194 else (9.1, 9.1, 9.1, 90.0, 90.0, 90.0)


def marked(known: Known) -> str:
    """The symbol with the mark of its origin or axes, where there is a choice."""
    if known.choice in ("H", "R"):
        return f"{known.full} :{known.choice}"
    return f"{known.full} :{known.choice[0]}" if known.choice[:1] in ("1", "2") else known.full


def file_of(known: Known, **tags: str) -> str:
    names = {
        "symbol": "_symmetry_space_group_name_H-M",
        "hall": "_symmetry_space_group_name_Hall",
        "number": "_symmetry_Int_Tables_number",
    }
    names["code"] = "_space_group_IT_coordinate_system_code"
    lines = ["data_x"]
    for tag, value in tags.items():
        lines += [f"{names[tag]}\n;{value}\n;"]
    lines += [f"_cell_length_{axis} {x}" for axis, x in zip("abc", known.cell, strict=False)]
    lines += [f"_cell_angle_{angle} {x}" for angle, x in zip(("alpha", "beta", "gamma"), known.cell[3:], strict=True)]
    lines += ["loop_", "_atom_site_label", *(f"_atom_site_fract_{axis}" for axis in "xyz")]
    return "\n".join([*lines, f"O1 {' '.join(f'{x:.4f}' for x in SITE)}"]) + "\n"


def outcome(known: Known, **tags: str) -> str:
    """ "right", "refused", or what is wrong."""
    try:
        found = read_cif(file_of(known, **tags)).frac_coords
    except (CifError, SymmetryError):
        return "refused"
    if len(found) != len(known.images):
        return f"{len(found)} positions for {len(known.images)}"
    gaps = found[:, None] - known.images
    distances = np.abs(gaps - np.rint(gaps)).max(2)
    return "right" if (distances.min(1) < 1e-6).all() and (distances.min(0) < 1e-6).all() else "other positions"


def outcomes(make_tags) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for known in known_settings():
        tags = make_tags(known)
        if tags is not None:
            found.setdefault(outcome(known, **tags), []).append(f"{known.number} {known.full} {known.choice}")
    return found


def is_ambiguous(known: Known) -> bool:
    """Whether an e-glide's symbol with this mark is that of two settings."""
    return sum(marked(other) == marked(known) for other in known_settings()) > 1


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text,
        lambda text: text.replace("_", "").replace(" ", ""),
        lambda text: text.replace(" :", ":").upper(),
        lambda text: text.replace("2_1", "2(1)").lower(),
        lambda text: text.replace(" ", "_"),
    ],
    ids=["spaced", "joined", "capitals", "bracketed", "underscores"],
)
def test_a_symbol_with_its_setting_gives_its_operations(spell) -> None:
    found = outcomes(lambda known: None if is_ambiguous(known) else {"symbol": spell(marked(known))})
    assert found.keys() == {"right"}, found


def test_a_symbol_of_two_settings_is_never_another_crystal_than_the_tables_say() -> None:
    """Where 1992's e-glides made two symbols one, the setting that the Tables list first is meant."""
    doubtful = [known for known in known_settings() if is_ambiguous(known)]
    assert len(doubtful) > 5
    for known in doubtful:
        first = next(other for other in known_settings() if marked(other) == marked(known))
        assert outcome(first, symbol=marked(known)) in ("right", "refused"), known


@pytest.mark.parametrize(("origin", "axes"), [(("S", "Z"), ("H", "R")), (("S", "Z"), ("HR", "RS"))])
def test_the_marks_of_icsd_and_cod_are_settings(origin: tuple[str, str], axes: tuple[str, str]) -> None:
    marks = {"1": origin[0], "2": origin[1], "H": axes[0], "R": axes[1]}

    def tags(known: Known) -> dict[str, str] | None:
        if known.choice not in marks:
            return None
        joined = known.full.replace(" ", "") + marks[known.choice]
        return {"symbol": joined if known.number % 2 else f"{known.full} {marks[known.choice]}"}

    found = outcomes(tags)
    assert found.keys() == {"right"} and len(found["right"]) > 50, found


def test_a_short_monoclinic_symbol_is_settled_by_the_cell() -> None:
    def tags(known: Known) -> dict[str, str] | None:
        parts = known.full.split()
        if not 3 <= known.number <= 15:
            return None
        return {"symbol": f"{parts[0]} {next(part for part in parts[1:] if part != '1')}"}

    found = outcomes(tags)
    assert found.keys() == {"right"} and len(found["right"]) == 105, found


@pytest.mark.parametrize(
    "spell",
    [str, str.upper, lambda text: text.lower().replace(" ", "  "), lambda text: text.replace(" ", "_")],
    ids=["as printed", "capitals", "wide", "underscores"],
)
def test_a_hall_symbol_alone_gives_its_operations(spell) -> None:
    found = outcomes(lambda known: {"hall": spell(known.hall)})
    assert found.keys() == {"right"}, found


def test_a_hall_symbol_without_blanks_is_read_where_it_is_that_of_one_group() -> None:
    found = outcomes(lambda known: {"hall": known.hall.replace(" ", "")})
    assert found.keys() <= {"right", "refused"}, found
    # "P32" is "P 32" and "P 3 2", "P62" likewise
    assert len(found["refused"]) == 4, found


def test_all_statements_together_give_the_operations() -> None:
    found = outcomes(lambda known: {"symbol": known.full, "hall": known.hall, "number": str(known.number)})
    assert found.keys() == {"right"}, found
    assert outcomes(lambda known: {"hall": known.hall, "number": str(known.number)}).keys() == {"right"}


def test_a_number_alone_is_read_only_where_it_has_one_setting() -> None:
    found = outcomes(lambda known: {"number": str(known.number)})
    assert found.keys() == {"right", "refused"}, {key: names for key, names in found.items() if key != "refused"}
    assert (
        "225 F m -3 m " in found["right"] and "167 R -3 c R" in found["right"] and "11 P 1 2_1/m 1 b" in found["right"]
    )
    assert "227 F d -3 m 1" in found["refused"] and "62 P n m a " in found["refused"]


def test_a_symbol_without_its_origin_is_refused_and_no_guess_is_made() -> None:
    found = outcomes(lambda known: {"symbol": known.full} if known.choice[:1] in ("1", "2") else None)
    assert found.keys() == {"refused"}, found


def test_a_coordinate_system_code_settles_what_the_symbol_leaves_open() -> None:
    found = outcomes(lambda known: {"symbol": known.full, "code": known.choice} if known.choice else None)
    assert found.keys() == {"right"}, found


@pytest.mark.parametrize(("number", "wrong"), [(225, 229), (14, 15), (167, 161), (62, 63)])
def test_a_number_that_is_not_the_symbols_is_a_contradiction(number: int, wrong: int) -> None:
    known = next(known for known in known_settings() if known.number == number)
    with pytest.raises(ValueError, match=f"contradicts itself.*number {number}.*number {wrong}"):
        read_cif(file_of(known, symbol=known.full, number=str(wrong)))


def test_the_settings_beyond_the_tables_have_the_type_that_spglib_finds() -> None:
    from cdvae_kit.io.crystals.operations import PARTS
    from cdvae_kit.io.crystals.settings import all_settings

    assert len(all_settings()) == 564
    for setting in all_settings()[530:]:
        operations = setting.operations
        kind = spglib.get_spacegroup_type_from_symmetry(operations.rotations, operations.translations / PARTS)
        assert kind.number == setting.number == operations.number, setting
