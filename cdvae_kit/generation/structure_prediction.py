"""Structures of given formulas: what known compounds and the prior's draws vote for, without repeats, ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetric import SymmetricCrystals, join
from cdvae_kit.generation.conditions import check_possible, conditions_from
from cdvae_kit.generation.templates import KNOWN_SHARE, Template, crystals_of, vote
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from cdvae_kit.models import CDVAE
    from cdvae_kit.relaxation import Relaxation


@dataclass(frozen=True)
class PredictedStructures:
    """Candidates for one formula, the best first.

    Attributes:
        formula: as it was asked for.
        crystals: the candidates.
        distance: (num_candidates,) how far the code of the finished crystal lies from the code that it was decoded
            from, in standard deviations of the training codes: 0 for a crystal that says what it was made from.
        log_p: (num_candidates,) log-probability of group and positions given the code, the latter with a small weight;
            see `models.symmetry_heads.Assignment`.
        times: (num_candidates,) long, how often the candidate was made.
        support: (num_candidates,) share of the votes that its group and positions have, 0 to 1.
    """

    formula: str
    crystals: SymmetricCrystals
    distance: torch.Tensor
    log_p: torch.Tensor
    times: torch.Tensor
    support: torch.Tensor


def predict_structures(
    model: CDVAE,
    formulas: Sequence[str],
    *,
    num_candidates: int = 16,
    formula_units: int | Literal["all"] = "all",
    space_group: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float = 1.0,
    known_share: float = KNOWN_SHARE,
    new: bool = False,
    first: int = 0,
    each: Callable[[int, PredictedStructures], None] | None = None,
    progress: Progress | None = None,
) -> list[PredictedStructures]:
    """Candidates for each formula.

    `num_candidates` draws of the prior, told the formula, and known compounds like it vote for space groups and Wyckoff
    positions. Each choice of these is decoded once from the most probable code of the prior that is told it, and again
    from drawn ones while candidates are left, all with exactly this formula. Crystals that match one another are kept
    once; what has more votes comes first, then the smaller distance.

    Args:
        model: with a learned prior.
        formulas: such as `BaTiO3`.
        num_candidates: crystals that are made of a formula, and draws that vote.
        formula_units: in the primitive cell; "all" leaves the number to the model.
        space_group: 1 to 230, if it is known.
        seed: formula i depends on the seed and i alone.
        steps: of the sampler.
        guidance: weight of the formula, see `LatentPrior.transport`.
        known_share: of known compounds in the votes; 0 leaves them to the prior, and so do models that know none
            (`config.prototypes`).
        new: leave out group and positions that a training crystal of exactly this composition has.
        first: formulas before this one are done already, and left out.
        each: told of a formula's number and candidates as soon as they are there.
        progress: called with (formulas done, formulas in all).

    Raises:
        ValueError: a formula that there is not, or that the model cannot make; it is named.
    """
    if model.prior is None:
        raise ValueError("structure prediction draws codes from a learned prior, which this model has not")
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}")
    wishes = []
    for formula in formulas:
        wish = conditions_from(formula=formula, formula_units=formula_units, space_group=space_group)
        assert wish is not None
        try:
            check_possible(model, wish)
        except ValueError as error:
            raise ValueError(f"{formula}: {error}") from error
        wishes.append(wish)
    found = []
    for i in range(first, len(formulas)):
        ids = i * num_candidates + torch.arange(num_candidates, device=model.device)
        found.append(
            _predict(
                model,
                formulas[i],
                wishes[i],
                ids,
                seed=seed,
                steps=steps,
                guidance=guidance,
                known_share=known_share,
                new=new,
            )
        )
        if each is not None:
            each(i, found[-1])
        if progress is not None:
            progress(i + 1, len(formulas))
    return found


@torch.no_grad()
def _predict(
    model: CDVAE,
    formula: str,
    wish: Conditions,
    ids: torch.Tensor,
    *,
    seed: int,
    steps: int | None,
    guidance: float,
    known_share: float,
    new: bool,
) -> PredictedStructures:
    templates = vote(
        model,
        [wish],
        draws=len(ids),
        ids=ids[:1] // len(ids),
        seed=seed,
        guidance=guidance,
        known_share=known_share,
        new=new,
    )[0]
    templates, heat = _in_turn(templates, len(ids))
    crystals, z = crystals_of(
        model,
        [wish] * len(ids),
        templates,
        ids=ids,
        seed=seed,
        guidance=guidance,
        temperature=heat.to(ids.device),
        num_steps=steps,
    )
    again = model.encode(crystals.plain(), allow_outside=True)
    assert model.prior is not None
    distance = model.prior.distance(again - z + model.prior.mean)
    support = torch.tensor([template.support for template in templates], device=distance.device)
    nearest = distance.argsort(stable=True)
    order = nearest[support[nearest].argsort(descending=True, stable=True)]
    kept, times = _distinct(crystals.plain().select(order).structures())
    rows = order[torch.tensor(kept, device=order.device)]
    names = [f"{formula}_{rank + 1}" for rank in range(len(rows))]
    log_p = model.symmetry_head.log_probability(z, crystals.orbits, crystals.elements)
    return PredictedStructures(
        formula,
        crystals.select(rows).replace(material_ids=names),
        distance[rows],
        log_p[rows],
        torch.tensor(times),
        support[rows],
    )


def _in_turn(templates: Sequence[Template], num: int) -> tuple[list[Template], Tensor]:
    """So many templates, the first ones again where there are too few; and temperatures, 0 for each the first time."""
    chosen = [templates[i % len(templates)] for i in range(num)]
    heat = (torch.arange(num) >= len(templates)).float()
    return chosen, heat


def _distinct(structures: Sequence[Structure]) -> tuple[list[int], list[int]]:
    """Indices of the structures that match no earlier one, and how many match each."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher()
    kept: list[int] = []
    times: list[int] = []
    for i, structure in enumerate(structures):
        same = next((k for k, j in enumerate(kept) if matcher.fit(structures[j], structure)), None)
        if same is None:
            kept.append(i)
            times.append(1)
        else:
            times[same] += 1
    return kept, times


def as_rows(number: int, found: PredictedStructures) -> CrystalBatch:
    """The candidates of formula `number` for a file; rank, support, distance and what else is known as properties."""
    count = len(found.crystals)
    dtype = found.distance.dtype
    properties = {
        "formula_number": torch.full((count,), float(number)),
        "rank": torch.arange(1, count + 1).to(dtype),
        "support": found.support,
        "distance": found.distance,
        "log_p": found.log_p.to(dtype),
        "times": found.times.to(dtype),
        "space_group": found.crystals.space_group.to(dtype),
    }
    crystals = found.crystals.plain().to("cpu")
    return crystals.replace(properties={name: values.cpu() for name, values in properties.items()})


def ranked_by_energy(rows: CrystalBatch, relaxations: Sequence[Relaxation]) -> Tensor:
    """Indices of rows (see `as_rows`), formula by formula, the lowest relaxed energy of an atom first.

    Candidates that could not be relaxed come last, in the model's order.
    """
    numbers = rows.properties["formula_number"].tolist()
    energies = [float("inf") if one.energy_per_atom is None else one.energy_per_atom for one in relaxations]
    # stable: of equal energies the model's order holds
    return torch.tensor(sorted(range(len(rows)), key=lambda i: (numbers[i], energies[i])), dtype=torch.long)


def all_candidates(found: Sequence[PredictedStructures]) -> SymmetricCrystals:
    """All candidates in one batch; distance, log-probability and rank are their properties."""
    parts = []
    for one in found:
        rank = torch.arange(1, len(one.crystals) + 1, device=one.distance.device).to(one.distance.dtype)
        properties = {"distance": one.distance, "log_p": one.log_p.to(one.distance.dtype), "rank": rank}
        parts.append(one.crystals.replace(properties=properties))
    return join(parts)
