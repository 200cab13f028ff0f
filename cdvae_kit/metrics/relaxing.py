"""Relaxes whole sets of crystals and holds them against a hull, with what is known kept on the disk.

Relaxing one crystal is in `cdvae_kit.relaxation`, judging in `stability`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdvae_kit.io.results.named_arrays import DecodeError, decode_arrays, encode_arrays
from cdvae_kit.metrics.computing.parallel import Memory, crystal_key
from cdvae_kit.metrics.crystals import CrystalArrays
from cdvae_kit.metrics.stability import METASTABLE, StabilityResult, stability
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.io.results.store import ResultStore
    from cdvae_kit.relaxation.hull import ReferenceHull
    from cdvae_kit.relaxation.relax import AnyCalculator
    from cdvae_kit.relaxation.result import Relaxation, RelaxationSettings

_KIND = "relaxation 1"
"""Raised with every change of the code that changes a relaxed crystal."""


@dataclass(frozen=True)
class StabilityRequest:
    """How the stability of crystals is to be judged.

    Attributes:
        calculator: a name that `cdvae_kit.relaxation.make_calculator` knows, an ASE calculator or a batched potential.
        hull: phases whose energies are by the same calculator, or of formation energies, against which those of the
            calculator are compared; None builds it from the reference set and the pure elements, relaxed likewise.
        fmax: eV/angstrom, at which a crystal is relaxed.
        max_steps: after which a crystal counts with the energy that it has.
        threshold: eV/atom above the hull that counts as metastable.
        device: of a calculator that is given by name.
        mp_corrections: add the Materials Project's corrections to energies that are compared with formation energies;
            None does it where the calculator's energies are known to be raw (`formation.needs_corrections`).
    """

    calculator: AnyCalculator
    hull: ReferenceHull | None = None
    fmax: float = 0.05
    max_steps: int = 500
    threshold: float = METASTABLE
    device: str = "auto"
    mp_corrections: bool | None = None


@dataclass(frozen=True)
class StabilityFound:
    """What came of it, for the sections and for who wants the relaxed crystals.

    Attributes:
        relaxations: one a generated crystal.
        result: energies above the hull, with the calculator and the hull in words.
    """

    relaxations: Sequence[Relaxation] = field(repr=False)
    result: StabilityResult


def judge_stability(
    generated: Sequence[CrystalArrays],
    reference: Sequence[CrystalArrays] | None,
    request: StabilityRequest,
    *,
    num_workers: int = 1,
    store: ResultStore | None = None,
    report: Callable[[str], AbstractContextManager[Progress | None]],
) -> StabilityFound:
    """Relaxes the generated crystals, and the reference where no hull is given, and holds the one against the other."""
    from cdvae_kit.relaxation.calculators import describe_calculator
    from cdvae_kit.relaxation.result import RelaxationSettings

    settings = RelaxationSettings(fmax=request.fmax, max_steps=request.max_steps)
    if request.hull is None and reference is None:
        raise ValueError("stability needs a hull, or a reference set to build one from")
    calculator = f"{describe_calculator(request.calculator)} ({settings})"

    def relaxed(crystals: Sequence[CrystalArrays], title: str) -> list[Relaxation]:
        with report(title) as tell:
            return relax_and_keep(
                crystals, request, settings, kind=calculator, num_workers=num_workers, store=store, progress=tell
            )

    hull = request.hull
    if hull is None:
        assert reference is not None
        hull = _hull_of(generated, reference, request, relaxed, calculator)
    relaxations = relaxed(generated, "Relaxing, generated")
    judged = relaxations
    if hull.energies == "formation":
        judged, said = _as_formation_energies(relaxations, request, settings)
        calculator = f"{calculator}; {said}"
    with report("Matching, relaxed") as tell:
        result = stability(
            judged,
            hull,
            threshold=request.threshold,
            calculator=calculator,
            num_workers=num_workers,
            progress=tell,
        )
    return StabilityFound(relaxations, result)


def _as_formation_energies(
    relaxations: Sequence[Relaxation], request: StabilityRequest, settings: RelaxationSettings
) -> tuple[list[Relaxation], str]:
    """The relaxations with formation energies, and in words how they were made."""
    from cdvae_kit.relaxation.formation import element_energies, formation_energies, needs_corrections

    corrected = needs_corrections(request.calculator) if request.mp_corrections is None else request.mp_corrections
    numbers = {number for one in relaxations if not one.failed for number in one.composition}
    elements, _ = element_energies(numbers, request.calculator, settings, device=request.device)
    said = f"formation energies from {len(elements)} of {len(numbers)} elements by the same calculator"
    how = "with" if corrected else "without"
    return formation_energies(relaxations, elements, corrected=bool(corrected)), f"{said}, {how} MP2020 corrections"


def relax_and_keep(
    crystals: Sequence[CrystalArrays],
    request: StabilityRequest,
    settings: Any,
    *,
    kind: str,
    num_workers: int = 1,
    store: ResultStore | None = None,
    progress: Progress | None = None,
) -> list[Relaxation]:
    """One `Relaxation` a crystal; each is kept as it is done, so that a run that was stopped goes on from there.

    Args:
        crystals: what is relaxed.
        request: by which calculator.
        settings: `RelaxationSettings`.
        kind: calculator and settings in words; another kind is never taken from the store.
        num_workers: processes.
        store: where results are kept.
        progress: told after every crystal.
    """
    from cdvae_kit.relaxation.relax import iter_relax

    memory = Memory(store, f"{_KIND} {kind}", crystal_key, _encode, _decode)
    keys = [memory.key_in_store(crystal) for crystal in crystals]
    done: dict[int, Relaxation] = {}
    kept = {} if store is None else store.get(keys)
    for i, key in enumerate(keys):
        if key in kept:
            try:
                done[i] = _decode(kept[key])
            except (DecodeError, LookupError, ValueError):
                # computed again
                continue
    left = [i for i in range(len(crystals)) if i not in done]
    if progress is not None:
        progress(len(done), len(crystals))
    found = iter_relax(
        [_given(crystals[i]) for i in left],
        request.calculator,
        settings,
        device=request.device,
        num_workers=num_workers,
    )
    for place, relaxation in found:
        done[left[place]] = relaxation
        if store is not None:
            store.put({keys[left[place]]: _encode(relaxation)})
        if progress is not None:
            progress(len(done), len(crystals))
    return [done[i] for i in range(len(crystals))]


def _hull_of(
    generated: Sequence[CrystalArrays],
    reference: Sequence[CrystalArrays],
    request: StabilityRequest,
    relaxed: Callable[[Sequence[CrystalArrays], str], list[Relaxation]],
    calculator: str,
) -> ReferenceHull:
    """From the reference set and the pure elements of the generated crystals, all by one calculator."""
    from cdvae_kit.relaxation.hull import ReferenceHull, phases_of_relaxations
    from cdvae_kit.relaxation.reference import elemental_phases
    from cdvae_kit.relaxation.result import RelaxationSettings

    systems = {frozenset(crystal.atomic_numbers.tolist()) for crystal in generated if crystal.fault is None}
    # what shares no chemical system with a generated crystal cannot be part of its hull
    theirs = [frozenset(crystal.atomic_numbers.tolist()) if crystal.fault is None else None for crystal in reference]
    inside = {part for part in set(theirs) if part is not None and any(part <= system for system in systems)}
    useful = [crystal for crystal, part in zip(reference, theirs, strict=True) if part in inside]
    elements = sorted({number for system in systems for number in system})
    phases = phases_of_relaxations(relaxed(useful, "Relaxing, reference"))
    settings = RelaxationSettings(fmax=request.fmax, max_steps=request.max_steps)
    pure, _ = elemental_phases(elements, request.calculator, settings, device=request.device)
    if not [*phases, *pure]:
        raise ValueError(
            f"no hull can be built by {calculator}: none of {len(useful)} reference crystals within the chemical "
            f"systems of the generated ones and none of {len(elements)} elements could be relaxed; give a hull"
        )
    name = (
        f"{len(phases)} of {len(reference)} reference crystals, those within the systems of the generated ones, and "
        f"{len(pure)} of {len(elements)} elements, relaxed likewise"
    )
    return ReferenceHull([*phases, *pure], name=name)


def _given(crystal: CrystalArrays) -> CrystalArrays | None:
    return None if crystal.fault is not None else crystal


def _encode(relaxation: Relaxation) -> bytes:
    from cdvae_kit.relaxation.result import encode

    return encode_arrays(*encode(relaxation))


def _decode(content: bytes) -> Relaxation:
    from cdvae_kit.relaxation.result import decode

    arrays, text = decode_arrays(content)
    return decode(arrays, text or "")
