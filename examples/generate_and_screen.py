"""Sample from a pretrained model, keep what is worth a second look, and write it for other programs.

Run `python generate_and_screen.py` for 200 perovskites of the model that the package carries, or name another model
(or the folder of one of your own) and a number: `python generate_and_screen.py runs/mine/model 500`. It writes a
folder of CIFs and an extxyz file, both called `screened`, into the folder where it runs, and replaces older ones.

Passing this screen means "not obviously wrong". Whether a crystal is stable is a question for an energy.
"""

import sys

from pymatgen.core import Structure

from cdvae_kit import CDVAE
from cdvae_kit.crystal.conversion import structures_to_batch
from cdvae_kit.crystal.periodic_images import shortest_distances
from cdvae_kit.crystal.symmetry import niggli_reduce, space_group
from cdvae_kit.io import write_crystals
from cdvae_kit.metrics import validity

ROWS_TO_PRINT = 20


def screen(structures: list[Structure], valid: list[bool]) -> list[Structure]:
    """Niggli-reduced crystals, one a composition: of equal ones the valid one of highest symmetry."""
    best: dict[str, tuple[int, Structure]] = {}
    for structure, is_valid in zip(structures, valid, strict=True):
        if not is_valid:
            continue
        reduced = niggli_reduce(structure)
        # a search that finds nothing has no number
        number = space_group(reduced).number or 1
        formula = reduced.composition.reduced_formula
        if formula not in best or number > best[formula][0]:
            best[formula] = (number, reduced)
    return [structure for _, structure in sorted(best.values(), key=lambda pair: -pair[0])]


def main(model_name: str = "perov_5", num_crystals: int = 200) -> None:
    model = CDVAE.from_pretrained(model_name)
    sampled = model.sample(num_crystals, seed=0)
    verdicts = validity(sampled)
    kept = screen(sampled.structures(), [verdict.valid for verdict in verdicts])
    num_valid = sum(verdict.valid for verdict in verdicts)
    print(f"{len(sampled)} sampled, {num_valid} of them valid, with {len(kept)} different compositions")
    if not kept:
        sys.exit("nothing is left to write; sample more, or train longer")

    formulas = [structure.composition.reduced_formula for structure in kept]
    batch = structures_to_batch(kept).replace(material_ids=formulas)
    write_crystals(batch, "screened", format="cif_folder", overwrite=True)
    write_crystals(batch, "screened.extxyz", overwrite=True)

    print(f"\n{'formula':14} {'atoms':>5}  {'space group':16} {'density, g/cm3':>14} {'shortest distance, A':>21}")
    rows = zip(kept, formulas, space_group(batch), shortest_distances(batch).tolist(), strict=True)
    for structure, formula, group, distance in list(rows)[:ROWS_TO_PRINT]:
        symmetry = f"{group.symbol} ({group.number})" if group.number is not None else "none found"
        print(f"{formula:14} {len(structure):5}  {symmetry:16} {float(structure.density):14.2f} {distance:21.2f}")
    if len(kept) > ROWS_TO_PRINT:
        print(f"... and {len(kept) - ROWS_TO_PRINT} more")
    print("\nwritten: screened/ (CIF) and screened.extxyz")


if __name__ == "__main__":
    name, *count = sys.argv[1:] or ["perov_5"]
    main(name, int(count[0]) if count else 200)
