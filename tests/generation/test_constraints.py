"""Constraints: contradictions before the run, and nothing returned that breaks one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.generation.optimization.constraints import Constraints, ContradictoryConstraintsError, elements
from cdvae_kit.generation.optimization.latent_optimizers import GuidedSearch
from cdvae_kit.generation.optimization.objectives import Goal
from cdvae_kit.generation.optimization.oracles import FunctionJudge
from cdvae_kit.generation.optimization.run import optimize
from cdvae_kit.metrics import check_composition, densities
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.models import decoding
from cdvae_kit.seeding import make_generator
from tests.generation.toys import LinearEnsemble, volume_per_atom
from tests.models.tiny import LATENT_DIM, MAX_ATOMS, tiny_model

MODEL = tiny_model()
KNOWN = MODEL.known_elements.tolist()
QUICK = GuidedSearch(num_rounds=2, num_paths=2, num_cycles=1, steps_per_cycle=2, num_kept=1, num_submitted=None)


@st.composite
def constraints(draw: st.DrawFn) -> Constraints:
    """Any that can be met by the model's elements and sizes."""
    allowed = draw(st.none() | st.sets(st.sampled_from(KNOWN), min_size=1, max_size=20))
    pool = sorted(allowed) if allowed is not None else KNOWN
    required = draw(st.sets(st.sampled_from(pool), max_size=min(2, len(pool))))
    others = [number for number in KNOWN if number not in required]
    forbidden = draw(st.sets(st.sampled_from(others), max_size=5))
    if allowed is not None and not allowed - forbidden:
        forbidden = set()
    low = draw(st.integers(1, MAX_ATOMS))
    high = draw(st.integers(max(low, len(required), 1), MAX_ATOMS + 2))
    density = draw(st.none() | st.tuples(st.floats(0.0, 8.0), st.floats(8.0, 40.0)))
    return Constraints(
        None if allowed is None else tuple(sorted(allowed)),
        tuple(sorted(required)),
        tuple(sorted(forbidden)),
        draw(st.sampled_from([None, (low, high)])),
        density,
    )


def obeys(limits: Constraints, crystals: CrystalBatch) -> bool:
    """Written out again, apart from the code that is tested."""
    for crystal, density in zip(as_arrays(crystals), densities(crystals), strict=True):
        present = set(crystal.atomic_numbers.tolist())
        if limits.allowed is not None and not present <= set(limits.allowed):
            return False
        if present & set(limits.forbidden) or not set(limits.required) <= present:
            return False
        if (
            limits.num_atoms is not None
            and not limits.num_atoms[0] <= len(crystal.atomic_numbers) <= limits.num_atoms[1]
        ):
            return False
        if limits.density is not None and not limits.density[0] <= density <= limits.density[1]:
            return False
        if limits.neutral and check_composition(crystal.reduced_composition) is not None:
            return False
    return True


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(constraints())
def test_every_returned_crystal_obeys_random_constraints(limits: Constraints) -> None:
    result = optimize(
        MODEL,
        Goal("energy"),
        predictor=LinearEnsemble(LATENT_DIM),
        judge=FunctionJudge(volume_per_atom, ("energy",)),
        starts=3,
        optimizer=QUICK,
        constraints=limits,
    )
    if result.candidates is not None:
        assert obeys(limits, result.candidates)
    # what decoding can be told needs no rejection, invalid or not
    told = Constraints(limits.allowed, limits.required, limits.forbidden, limits.num_atoms)
    assert obeys(told, result.trials.crystals)


def test_neutral_candidates_are_neutral() -> None:
    codes = torch.randn(60, LATENT_DIM, generator=make_generator(2))
    crystals = decoding.decode(MODEL, codes)
    limits = Constraints(neutral=True)
    verdicts = limits.violations(crystals)
    assert 0 < sum(verdict is None for verdict in verdicts) < 60
    for i, verdict in enumerate(verdicts):
        assert (verdict is None) == obeys(limits, crystals.select([i]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"required": (8,), "forbidden": (8, 9)}, "O cannot be both required and forbidden"),
        ({"required": (8,), "allowed": (9, 11)}, r"required elements O are not among the allowed ones \(F, Na\)"),
        ({"allowed": (9,), "forbidden": (9,)}, "none is left"),
        ({"num_atoms": (8, 3)}, "from low to high"),
        ({"num_atoms": (0, 3)}, "at least 1"),
        ({"density": (6.0, 2.0)}, "from low to high"),
        ({"density": (float("nan"), 2.0)}, "from low to high"),
        ({"required": (8, 9, 11), "num_atoms": (1, 2)}, "3 required elements need as many atoms"),
    ],
)
def test_contradictions_are_found_at_once(options: dict, message: str) -> None:
    with pytest.raises(ContradictoryConstraintsError, match=message):
        Constraints(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"required": (100,)}, "never seen the required elements Fm"),
        ({"allowed": (100,)}, "knows none of the elements"),
        ({"num_atoms": (MAX_ATOMS + 1, 40)}, f"cells of at most {MAX_ATOMS}"),
        ({"required": tuple(KNOWN[: MAX_ATOMS + 1])}, f"makes at most {MAX_ATOMS}"),
    ],
)
def test_what_the_model_cannot_make_is_found_before_the_run(options: dict, message: str) -> None:
    assert 100 not in KNOWN
    with pytest.raises(ContradictoryConstraintsError, match=message):
        Constraints(**options).check_model(MODEL)


def test_elements_that_cannot_balance_are_found_before_the_run() -> None:
    model = tiny_model()
    model.known_elements = torch.tensor([2, 9, 17, 11])
    with pytest.raises(ContradictoryConstraintsError, match="He has no oxidation state"):
        Constraints(required=(2, 9), neutral=True).check_model(model)
    Constraints(required=(9, 11), neutral=True).check_model(model)
    Constraints(required=(9, 17), neutral=False).check_model(model)


def test_the_guide_leads_codes_to_what_is_asked_for() -> None:
    """Down the penalty's gradient, the heads' own reading meets the constraints more often than before."""
    limits = Constraints(required=(KNOWN[2],), forbidden=tuple(KNOWN[5:20]), num_atoms=(2, 3), density=(1.0, 4.0))
    penalty = limits.guide(MODEL)
    assert penalty is not None and Constraints(neutral=True).guide(MODEL) is None
    z = torch.randn(30, LATENT_DIM, generator=make_generator(4)).requires_grad_(True)
    before = penalty(z).detach()
    adam = torch.optim.Adam([z], lr=0.05)
    for _ in range(60):
        (z.grad,) = torch.autograd.grad(penalty(z).sum(), z)
        adam.step()
    assert bool(penalty(z).isfinite().all())
    assert float(penalty(z).detach().mean()) < 0.7 * float(before.mean())
    single = penalty(z.detach()[:1])
    torch.testing.assert_close(single, penalty(z.detach())[:1], rtol=1e-3, atol=1e-3)


def test_the_density_that_guides_is_the_density_that_is_checked() -> None:
    """A head that reads a crystal's own lattice and composition gives no penalty inside the range, and one outside."""
    z = torch.randn(5, LATENT_DIM, generator=make_generator(1))
    sizes = decoding.read_num_atoms(MODEL, z)
    fractions = MODEL.composition_head.fractions(z, sizes)
    from pymatgen.core import Element

    masses = torch.tensor([float(Element.from_Z(n).atomic_mass) for n in range(1, fractions.shape[1] + 1)])
    orbits = Orbits.without_symmetry(sizes)
    volumes = torch.linalg.det(MODEL.lattice_coding.primitive(MODEL.lattice_head(z), orbits)).abs()
    density = ((fractions * masses).sum(-1) * sizes * 1.66053906660 / volumes).detach()
    for i, value in enumerate(density.tolist()):
        inside, outside = (Constraints(density=(f * value, 3 * f * value)).guide(MODEL) for f in (0.5, 2.0))
        assert inside is not None and outside is not None
        assert float(inside(z)[i]) == pytest.approx(0.0, abs=1e-4)
        assert float(outside(z)[i]) == pytest.approx(10.0 * np.log(2.0), rel=1e-3)


def test_symbols_are_read_in_any_order_and_a_wrong_one_is_named() -> None:
    assert elements("Ti,O Sr") == elements(["Sr", "O", "Ti"]) == (8, 22, 38)
    with pytest.raises(ValueError, match="'Xx' is no element"):
        elements("O, Xx")
