"""The parts of an evaluation that look at crystals one by one or at sets as wholes: validity to symmetry.

Each takes the sets and returns a `Section`; how each number comes about is in the module that is named after it. What
asks whether two crystals are the same is in `sameness_sections`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from cdvae_kit.metrics.composition_rules import CompositionRule
from cdvae_kit.metrics.coverage import Cutoffs, coverage
from cdvae_kit.metrics.crystal_set import CrystalSet
from cdvae_kit.metrics.crystals import CrystalArrays, symbol
from cdvae_kit.metrics.distributions import (
    composition_diversity,
    densities,
    numbers_of_elements,
    structure_diversity,
    wasserstein,
)
from cdvae_kit.metrics.divergences import (
    binned,
    expected_divergence,
    frechet_distance,
    jensen_shannon,
    quantile_edges,
    vendi_score,
)
from cdvae_kit.metrics.evaluation_result import Distribution, MetricValue
from cdvae_kit.metrics.evaluation_section import Section, mean, missing, number, rate
from cdvae_kit.metrics.fingerprints import Fingerprint, stack
from cdvae_kit.metrics.validity import Validity, structure_validity, validity_of

PropertyFunction: TypeAlias = Callable[[Sequence[CrystalArrays]], "np.ndarray | Sequence[float]"]
"""One value a crystal, in order, NaN where there is none; crystals that cannot be used are not among them."""

_VENDI_CRYSTALS = 2000


def validity_section(
    crystals: Sequence[CrystalArrays], vectors: Sequence[Fingerprint] | None, *, rule: CompositionRule, seed: int
) -> Section:
    """Shares of valid crystals as published, and ours beside it, which sees an atom's own periodic image.

    Args:
        crystals: the generated ones.
        vectors: their fingerprints, which the published `valid` asks for; None leaves that part out.
        rule: of the composition.
        seed: of the intervals.
    """
    verdicts = validity_of(crystals, rule=rule)
    strict = structure_validity(crystals, strict=True)
    valid = is_valid(verdicts, vectors)
    reasons = [
        verdict.reason or (None if vectors is None else vectors[i].reason) or own.reason
        for i, (verdict, own) in enumerate(zip(verdicts, strict, strict=True))
    ]
    flags = {
        "struct_valid": [verdict.structure for verdict in verdicts],
        "comp_valid": [verdict.composition for verdict in verdicts],
        "valid": valid,
        "struct_valid_strict": [verdict.valid for verdict in strict],
    }
    notes = {
        "struct_valid": "different atoms at least 0.5 A apart, as published",
        "comp_valid": f"rule {rule}",
        "valid": "both" + (", and every site has a fingerprint, as published" if vectors is not None else ""),
        "struct_valid_strict": "ours: an atom's own periodic image counts too",
    }
    metrics = [rate(name, flags[name], "validity", seed=seed, note=notes[name]) for name in flags]
    return Section(metrics, flags, {}, reasons)


def is_valid(verdicts: Sequence[Validity], vectors: Sequence[Fingerprint] | None) -> list[bool]:
    """By structure, composition and, where vectors are given, fingerprint."""
    if vectors is None:
        return [verdict.valid for verdict in verdicts]
    return [verdict.valid and vector.complete for verdict, vector in zip(verdicts, vectors, strict=True)]


def coverage_section(
    generated: Sequence[Fingerprint], reference: Sequence[Fingerprint], *, cutoffs: Cutoffs, seed: int
) -> Section:
    """COV, AMSD and AMCD both ways; `joint` asks one crystal to be near in both."""
    found = coverage(generated, reference, cutoffs=cutoffs)
    ours, theirs = found.generated, found.references
    apart = f"nearest structure within {cutoffs.structure:g} and nearest composition within {cutoffs.composition:g}"
    together = "ours: one crystal near in both"
    why = found.reason or ""
    metrics = [
        number("n_ref", len(reference), len(reference), "coverage"),
        number("n_ref_with_fp", sum(vector.complete for vector in reference), len(reference), "coverage"),
        rate("cov_recall", theirs.near, "coverage", seed=seed, note=why or f"references with {apart}"),
        rate("cov_precision", ours.near, "coverage", seed=seed, note=why or f"generated with {apart}"),
        rate("cov_recall_joint", theirs.near_joint, "coverage", seed=seed, note=why or together),
        rate("cov_precision_joint", ours.near_joint, "coverage", seed=seed, note=why or together),
        mean("amsd_recall", theirs.structure, "coverage", seed=seed, note=why),
        mean("amsd_precision", ours.structure, "coverage", seed=seed, note=why),
        mean("amcd_recall", theirs.composition, "coverage", seed=seed, note=why),
        mean("amcd_precision", ours.composition, "coverage", seed=seed, note=why),
    ]
    return Section(
        metrics,
        {"covered": ours.near.tolist(), "covered_joint": ours.near_joint.tolist()},
        {"nearest_structure": ours.structure, "nearest_composition": ours.composition},
    )


def distribution_section(
    generated: CrystalSet, reference: CrystalSet | None, *, valid: np.ndarray, sampled: np.ndarray
) -> Section:
    """Density, number of elements, atoms, volume and elements of the valid crystals against the reference.

    Args:
        generated: the whole set.
        reference: the whole reference; without it there are values and no distances.
        valid: indices of the valid crystals.
        sampled: those of them that the published distances are taken of.
    """
    quantities = {
        "density": ("g/cm³", densities),
        "num_elems": ("", numbers_of_elements),
        "num_atoms": ("", _numbers_of_atoms),
        "volume_per_atom": ("Å³", volumes_per_atom),
    }
    metrics, distributions = [], []
    for name, (unit, measure) in quantities.items():
        ours = measure(generated.arrays)
        theirs = None if reference is None else measure(reference.arrays)
        distributions.append(Distribution(name, unit, ours[valid], theirs, "continuous"))
        if theirs is not None:
            metrics.append(_distance(f"wdist_{name}", ours[sampled], theirs, unit))
    ours_elements, _ = _elements(generated.arrays, valid)
    theirs_elements, crystals = (None, None) if reference is None else _elements(reference.arrays)
    distributions.append(_labels("element", ours_elements, theirs_elements))
    if theirs_elements is not None:
        metrics.append(divergence("jsd_elements", ours_elements, theirs_elements, len(valid), crystals=crystals))
        volumes = next(entry for entry in distributions if entry.name == "volume_per_atom")
        edges = quantile_edges(_reference_of(volumes))
        metrics.append(
            divergence(
                "jsd_volume_per_atom",
                binned(volumes.generated, edges),
                binned(_reference_of(volumes), edges),
                len(valid),
            )
        )
    return Section(metrics, distributions=distributions)


def diversity_section(
    generated: Sequence[Fingerprint],
    reference: Sequence[Fingerprint],
    *,
    sampled: np.ndarray,
    cutoffs: Cutoffs,
    seed: int,
) -> Section:
    """Mean distances within the sample as published, and effective numbers of kinds at the scale of the cutoffs."""
    vectors = [generated[i] for i in sampled]
    metrics = [
        number(
            "comp_div", composition_diversity(vectors), len(vectors), "distribution", note="mean distance of a pair"
        ),
        number(
            "struct_div", structure_diversity(vectors), len(vectors), "distribution", note="mean distance of a pair"
        ),
    ]
    ours, theirs = stack([v for v in vectors if v.complete]), stack([v for v in reference if v.complete])
    # of one size, since the score grows with it
    size = min(len(ours[0]), _VENDI_CRYSTALS, *([len(theirs[0])] if len(theirs[0]) else []))
    scales = {"vendi_structure": cutoffs.structure, "vendi_composition": cutoffs.composition}
    for (name, scale), mine, yours in zip(scales.items(), ours, theirs, strict=True):
        if not (scale > 0 and size):
            reason = "no valid crystal has a fingerprint" if scale > 0 else "the cutoff, its length scale, is 0"
            metrics.append(missing(name, "distribution", reason))
            continue
        note = f"effective number of kinds among {size}, at a length scale of {scale:g}"
        for suffix, rows in (("", mine), ("_reference", yours)):
            if len(rows):
                score = vendi_score(rows, length_scale=scale, max_vectors=size, seed=seed)
                metrics.append(number(f"{name}{suffix}", score, size, "distribution", note=note))
    return Section(metrics)


def coordination_section(
    generated: Sequence[Fingerprint], reference: Sequence[Fingerprint] | None, *, valid: np.ndarray
) -> Section:
    """CrystalNN's numbers of neighbours at the sites of the valid crystals, against those of the reference."""
    ours, _ = _coordination([generated[i] for i in valid])
    theirs, crystals = (None, None) if reference is None else _coordination(reference)
    metrics = []
    if theirs is not None:
        metrics.append(divergence("jsd_coordination", ours, theirs, len(valid), crystals=crystals))
    return Section(metrics, distributions=[_labels("coordination", ours, theirs)])


def _coordination(vectors: Sequence[Fingerprint]) -> tuple[list[int], list[int]]:
    """The coordination number of every site, and the crystal that it is of."""
    sites = [
        (number, crystal)
        for crystal, found in enumerate(vectors)
        if found.coordination is not None
        for number in found.coordination
    ]
    return [int(number) for number, _ in sites], [crystal for _, crystal in sites]


def property_section(
    generated: CrystalSet,
    reference: CrystalSet | None,
    *,
    names: Sequence[str],
    functions: Mapping[str, PropertyFunction],
    units: Mapping[str, str],
    sampled: np.ndarray,
) -> Section:
    """Wasserstein distance of each property: by a predictor of the caller's where there is one, else by column.

    A predictor judges both sets, as in published distances of energies.
    """
    metrics, values, distributions = [], {}, []
    for name in names:
        ours = property_values(generated, name, functions)
        if ours is not None:
            values[name] = ours
        if reference is None:
            continue
        theirs = property_values(reference, name, functions)
        lacking = "generated" if ours is None else "reference" if theirs is None else None
        if ours is None or theirs is None:
            reason = f"the {lacking} crystals have no {name}, and no predictor gives it"
            metrics.append(missing(f"wdist_{name}", "distribution", reason))
            continue
        metrics.append(_distance(f"wdist_{name}", ours[sampled], theirs, units.get(name, "")))
        distributions.append(Distribution(name, units.get(name, ""), ours[sampled], theirs, "continuous"))
    return Section(metrics, values=values, distributions=distributions)


def property_values(crystals: CrystalSet, name: str, functions: Mapping[str, PropertyFunction]) -> np.ndarray | None:
    """By the caller's function where there is one, else by the column; None where there is neither."""
    if name not in functions:
        return crystals.properties.get(name)
    usable = [i for i, crystal in enumerate(crystals.arrays) if crystal.fault is None]
    given = functions[name]([crystals.arrays[i] for i in usable]) if usable else []
    found = np.asarray(given, dtype=np.float64)
    if found.shape != (len(usable),):
        raise ValueError(f"the predictor of {name} must give {len(usable)} values, one a crystal, got {found.shape}")
    values = np.full(len(crystals), np.nan)
    values[usable] = found
    # what is infinite has no place in a mean or a distance
    return np.where(np.isfinite(values), values, np.nan)


def symmetry_section(
    generated: Sequence[CrystalArrays],
    reference: Sequence[CrystalArrays] | None,
    *,
    valid: np.ndarray,
    symprec: float,
    seed: int,
) -> tuple[Section, list[int | None]]:
    """Space groups and crystal systems, the share of P1, and the space group of each generated crystal."""
    from cdvae_kit.crystal.symmetry import crystal_system

    ours = space_groups(generated, symprec)
    theirs = None if reference is None else space_groups(reference, symprec)
    judged = [ours[i] for i in valid]
    note = f"at symprec {symprec:g} A"
    metrics = [
        rate("share_p1", [group == 1 for group in judged], "symmetry", seed=seed, note=f"of valid crystals, {note}"),
        rate("share_triclinic", [group in (1, 2) for group in judged], "symmetry", seed=seed, note="P1 or P-1"),
    ]
    if theirs is not None:
        metrics.append(rate("share_p1_reference", [group == 1 for group in theirs], "symmetry", seed=seed, note=note))
    distributions = []
    for name, label in (("space_group", lambda group: group), ("crystal_system", crystal_system)):
        mine = [None if group is None else label(group) for group in judged]
        yours = None if theirs is None else [None if group is None else label(group) for group in theirs]
        distributions.append(_labels(name, mine, yours))
        if yours is not None:
            metrics.append(divergence(f"jsd_{name}", mine, yours, len(mine)))
    return Section(metrics, distributions=distributions), ours


def space_groups(crystals: Sequence[CrystalArrays], symprec: float) -> list[int | None]:
    """Number of each crystal's space group, None where none is found."""
    from cdvae_kit.crystal.symmetry import find_space_group

    return [
        None
        if crystal.fault is not None
        else find_space_group(
            crystal.lattice.tolist(), crystal.frac_coords.tolist(), crystal.atomic_numbers.tolist(), symprec
        ).number
        for crystal in crystals
    ]


def latent_section(ours: np.ndarray, theirs: np.ndarray) -> Section:
    """Fréchet distance of the codes of an encoder."""
    value = frechet_distance(ours, theirs)
    smallest = min(len(ours), len(theirs))
    note = "squared, between Gaussians in the latent space"
    if value is None:
        note = "a set has fewer than two codes"
    elif smallest <= ours.shape[1]:
        note += f"; {smallest} crystals are few for {ours.shape[1]} dimensions, so it is too large"
    return Section([number("frechet_distance", value, smallest, "distribution", note=note)])


def divergence(
    name: str,
    ours: Sequence[object],
    theirs: Sequence[object],
    num_crystals: int,
    *,
    crystals: Sequence[int] | None = None,
) -> MetricValue:
    """Jensen-Shannon divergence, with what drawing so many crystals from the reference would show beside it.

    Args:
        name: of the number.
        ours: labels of the generated crystals.
        theirs: of the reference.
        num_crystals: that `ours` are of.
        crystals: which crystal each of `theirs` belongs to, where a crystal has several.
    """
    value = jensen_shannon(ours, theirs)
    expected = expected_divergence(theirs, num_generated=num_crystals, crystals=crystals)
    if value is None or expected is None:
        return missing(name, "distribution", "a set has no crystal that can be counted")
    note = f"bits; {expected:.4f} of as many crystals drawn from the reference itself"
    return number(name, value, num_crystals, "distribution", note=note)


def volumes_per_atom(crystals: Sequence[CrystalArrays]) -> np.ndarray:
    """(num_crystals,) cubic angstrom; NaN for a crystal that cannot be used."""
    return np.array(
        [np.nan if crystal.fault else crystal.volume / len(crystal.atomic_numbers) for crystal in crystals],
        dtype=np.float64,
    )


def _numbers_of_atoms(crystals: Sequence[CrystalArrays]) -> np.ndarray:
    return np.array(
        [np.nan if crystal.fault else len(crystal.atomic_numbers) for crystal in crystals], dtype=np.float64
    )


def _elements(
    crystals: Sequence[CrystalArrays], index: Sequence[int] | np.ndarray | None = None
) -> tuple[list[str], list[int]]:
    """The element of every atom of the crystals at `index`, and the crystal that the atom belongs to."""
    atoms = [
        (symbol(z), int(i))
        for i in (range(len(crystals)) if index is None else index)
        if crystals[i].fault is None
        for z in crystals[i].atomic_numbers.tolist()
    ]
    return [element for element, _ in atoms], [crystal for _, crystal in atoms]


def _labels(name: str, ours: Sequence[object], theirs: Sequence[object] | None) -> Distribution:
    return Distribution(
        name,
        "",
        np.array(ours, dtype=object),
        None if theirs is None else np.array(theirs, dtype=object),
        "categorical",
    )


def _reference_of(distribution: Distribution) -> np.ndarray:
    return distribution.reference if distribution.reference is not None else np.zeros(0)


def _distance(name: str, ours: np.ndarray, theirs: np.ndarray, unit: str) -> MetricValue:
    found = wasserstein(ours, theirs)
    note = found.reason or f"{unit + ', ' if unit else ''}of {found.num_generated} valid crystals"
    return number(name, found.value, found.num_generated, "distribution", note=note)
