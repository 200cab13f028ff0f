"""A picture of generated crystals: one of each crystal system, and one of a formula and space group that are asked for.

Run `python crystals_by_system.py` for the picture of the README, `crystals.png`, drawn in the folder where it runs (an
older one is replaced), or name another file: `python crystals_by_system.py picture.png`. Which system a crystal has is
not drawn until it fits: it is fixed where the model reads its space group.
"""

import io
import sys

from PIL import Image
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from cdvae_kit import CDVAE
from cdvae_kit.generation.conditions import Conditions, conditions_from
from cdvae_kit.metrics import validity
from cdvae_kit.visualization import plot_grid

SYSTEMS = ("cubic", "hexagonal", "trigonal", "tetragonal", "orthorhombic", "monoclinic", "triclinic")
NUM_DRAWN = 6
"""Crystals of each kind, of which the first valid one is shown."""


def first_valid(model: CDVAE, conditions: Conditions | None) -> Structure:
    """The first crystal that is valid, in its conventional cell."""
    sampled = model.sample(NUM_DRAWN, conditions=conditions, seed=0)
    verdicts = validity(sampled)
    chosen = next((i for i, verdict in enumerate(verdicts) if verdict.valid), None)
    if chosen is None:
        sys.exit(f"none of {NUM_DRAWN} crystals is valid: draw more")
    return SpacegroupAnalyzer(sampled.structures()[chosen], symprec=0.01).get_conventional_standard_structure()


def main(path: str = "crystals.png") -> None:
    model = CDVAE.from_pretrained("mp_20")
    asked = [conditions_from(crystal_system=system) for system in SYSTEMS]
    asked.append(conditions_from(formula="BaTiO3", space_group=221))
    figure = plot_grid([first_valid(model, conditions) for conditions in asked], columns=4, origin="atom")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150)
    # 256 colours are enough, and a quarter of the bytes
    Image.open(drawn).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"written: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
