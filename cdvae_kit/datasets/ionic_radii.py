"""Ionic radii of the ions that the built-in prototypes are made of, and which of them go together.

Effective ionic radii in angstrom by coordination number (high spin where there is a choice): R. D. Shannon, Acta
Cryst. A 32, 751 (1976), doi 10.1107/S0567739476001551. The crystals made from them are in `ionic_prototypes`.
"""

from __future__ import annotations

from typing import NamedTuple


class Ion(NamedTuple):
    """An ion: its element's symbol and atomic number, and its charge in units of e."""

    symbol: str
    atomic_number: int
    charge: int

    @property
    def label(self) -> str:
        """As chemists and pymatgen write it.

        >>> Ion("O", 8, -2).label
        'O2-'
        """
        size = abs(self.charge)
        return f"{self.symbol}{size if size > 1 else ''}{'+' if self.charge > 0 else '-'}"


CATION_RADII: dict[Ion, dict[int, float]] = {
    Ion("Li", 3, 1): {4: 0.59, 6: 0.76, 8: 0.92},
    Ion("Na", 11, 1): {4: 0.99, 6: 1.02, 8: 1.18, 12: 1.39},
    Ion("K", 19, 1): {4: 1.37, 6: 1.38, 8: 1.51, 12: 1.64},
    Ion("Cu", 29, 1): {4: 0.6, 6: 0.77},
    Ion("Rb", 37, 1): {6: 1.52, 8: 1.61, 12: 1.72},
    Ion("Ag", 47, 1): {4: 1.0, 6: 1.15, 8: 1.28},
    Ion("Cs", 55, 1): {6: 1.67, 8: 1.74, 12: 1.88},
    Ion("Tl", 81, 1): {6: 1.5, 8: 1.59, 12: 1.7},
    Ion("Be", 4, 2): {4: 0.27, 6: 0.45},
    Ion("Mg", 12, 2): {4: 0.57, 6: 0.72, 8: 0.89},
    Ion("Ca", 20, 2): {6: 1.0, 8: 1.12, 12: 1.34},
    Ion("V", 23, 2): {6: 0.79},
    Ion("Mn", 25, 2): {4: 0.66, 6: 0.83, 8: 0.96},
    Ion("Fe", 26, 2): {4: 0.63, 6: 0.78, 8: 0.92},
    Ion("Co", 27, 2): {4: 0.58, 6: 0.745, 8: 0.9},
    Ion("Ni", 28, 2): {4: 0.55, 6: 0.69},
    Ion("Zn", 30, 2): {4: 0.6, 6: 0.74, 8: 0.9},
    Ion("Sr", 38, 2): {6: 1.18, 8: 1.26, 12: 1.44},
    Ion("Cd", 48, 2): {4: 0.78, 6: 0.95, 8: 1.1, 12: 1.31},
    Ion("Ba", 56, 2): {6: 1.35, 8: 1.42, 12: 1.61},
    Ion("Eu", 63, 2): {6: 1.17, 8: 1.25},
    Ion("Hg", 80, 2): {4: 0.96, 6: 1.02, 8: 1.14},
    Ion("Pb", 82, 2): {6: 1.19, 8: 1.29, 12: 1.49},
    Ion("Al", 13, 3): {4: 0.39, 6: 0.535},
    Ion("Sc", 21, 3): {6: 0.745, 8: 0.87},
    Ion("Ti", 22, 3): {6: 0.67},
    Ion("V", 23, 3): {6: 0.64},
    Ion("Cr", 24, 3): {6: 0.615},
    Ion("Mn", 25, 3): {6: 0.645},
    Ion("Fe", 26, 3): {4: 0.49, 6: 0.645, 8: 0.78},
    Ion("Co", 27, 3): {6: 0.61},
    Ion("Ga", 31, 3): {4: 0.47, 6: 0.62},
    Ion("Y", 39, 3): {6: 0.9, 8: 1.019},
    Ion("Rh", 45, 3): {6: 0.665},
    Ion("In", 49, 3): {4: 0.62, 6: 0.8, 8: 0.92},
    Ion("La", 57, 3): {6: 1.032, 8: 1.16, 12: 1.36},
    Ion("Nd", 60, 3): {6: 0.983, 8: 1.109, 12: 1.27},
    Ion("Gd", 64, 3): {6: 0.938, 8: 1.053},
    Ion("Lu", 71, 3): {6: 0.861, 8: 0.977},
    Ion("Bi", 83, 3): {6: 1.03, 8: 1.17},
    Ion("Si", 14, 4): {4: 0.26, 6: 0.4},
    Ion("Ti", 22, 4): {4: 0.42, 6: 0.605, 8: 0.74},
    Ion("V", 23, 4): {6: 0.58, 8: 0.72},
    Ion("Mn", 25, 4): {4: 0.39, 6: 0.53},
    Ion("Ge", 32, 4): {4: 0.39, 6: 0.53},
    Ion("Zr", 40, 4): {4: 0.59, 6: 0.72, 8: 0.84},
    Ion("Nb", 41, 4): {6: 0.68, 8: 0.79},
    Ion("Ru", 44, 4): {6: 0.62},
    Ion("Sn", 50, 4): {4: 0.55, 6: 0.69, 8: 0.81},
    Ion("Te", 52, 4): {4: 0.66, 6: 0.97},
    Ion("Ce", 58, 4): {6: 0.87, 8: 0.97, 12: 1.14},
    Ion("Hf", 72, 4): {4: 0.58, 6: 0.71, 8: 0.83},
    Ion("Ir", 77, 4): {6: 0.625},
    Ion("Pt", 78, 4): {6: 0.625},
    Ion("Pb", 82, 4): {4: 0.65, 6: 0.775, 8: 0.94},
    Ion("Th", 90, 4): {6: 0.94, 8: 1.05, 12: 1.21},
    Ion("U", 92, 4): {6: 0.89, 8: 1.0, 12: 1.17},
    Ion("Nb", 41, 5): {4: 0.48, 6: 0.64, 8: 0.74},
    Ion("Sb", 51, 5): {6: 0.6},
    Ion("Ta", 73, 5): {6: 0.64, 8: 0.74},
    Ion("Mo", 42, 6): {4: 0.41, 6: 0.59},
    Ion("Te", 52, 6): {4: 0.43, 6: 0.56},
    Ion("W", 74, 6): {4: 0.42, 6: 0.6},
    Ion("Re", 75, 6): {6: 0.55},
}

ANION_RADII: dict[Ion, dict[int, float]] = {
    Ion("O", 8, -2): {2: 1.35, 3: 1.36, 4: 1.38, 6: 1.4, 8: 1.42},
    Ion("F", 9, -1): {2: 1.285, 3: 1.3, 4: 1.31, 6: 1.33},
    Ion("S", 16, -2): {6: 1.84},
    Ion("Cl", 17, -1): {6: 1.81},
    Ion("Se", 34, -2): {6: 1.98},
    Ion("Br", 35, -1): {6: 1.96},
    Ion("Te", 52, -2): {6: 2.21},
    Ion("I", 53, -1): {6: 2.2},
    Ion("N", 7, -3): {4: 1.46},
}

# these take electrons from any anion softer than oxide and fluoride
_OXIDISING = frozenset(
    {"Mn3+", "Fe3+", "Co3+", "Rh3+", "V4+", "Mn4+", "Ru4+", "Ir4+", "Pb4+", "Ce4+"}
    | {"Nb5+", "Sb5+", "Ta5+", "Mo6+", "Te6+", "W6+", "Re6+"}
)


def cation_radius(ion: Ion, coordination: int) -> float | None:
    """Angstrom; None where Shannon gives none for this coordination number."""
    return CATION_RADII[ion].get(coordination)


def anion_radius(ion: Ion, coordination: int) -> float:
    """Angstrom; of the nearest coordination number that Shannon gives, since most anions have one only."""
    radii = ANION_RADII[ion]
    return radii[min(radii, key=lambda known: (abs(known - coordination), known))]


def go_together(cation: Ion, anion: Ion) -> bool:
    """Whether a salt of both is plausible: no redox reaction between them, and not one element twice."""
    if cation.symbol == anion.symbol:
        return False
    if anion.symbol in ("O", "F"):
        return True
    if anion.symbol == "N":
        return cation.charge == 3 and cation.label not in _OXIDISING
    return cation.label not in _OXIDISING
