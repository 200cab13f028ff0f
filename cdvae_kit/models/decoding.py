"""From codes to crystals: what `CDVAE.decode` and `CDVAE.sample` do.

Crystals are sampled in batches of similar size, so that small ones do not wait for large ones, and come back in the
order that they were asked for. Random numbers come from `CrystalNoise`: from the seed and the crystal's own number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.conversion import atoms_to_batch, structures_to_batch
from cdvae_kit.crystal.lattice import lattice_from_parameters, lattice_parameters
from cdvae_kit.crystal.periodic_images import shortest_distances
from cdvae_kit.crystal.symmetric import SymmetricCrystals, join
from cdvae_kit.crystal.symmetry import niggli_reduce, space_group
from cdvae_kit.diffusion.samplers import FlowSampler, LangevinSampler, Sampler
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.models.codes import CODE_TRIES, check_num_atoms
from cdvae_kit.models.codes import latent_noise as latent_noise
from cdvae_kit.models.codes import sample_codes as sample_codes
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.contents import Contents, known_elements, read_contents
from cdvae_kit.models.contents import read_num_atoms as read_num_atoms
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits
from cdvae_kit.seeding import CrystalNoise
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

    from cdvae_kit.models.cdvae import CDVAE

_PAIRS_AT_ONCE = 400_000
"""Pairs of atoms in a batch of the automatic size: some 2 GiB at the default width."""

_START_STREAM, _LATTICE_STREAM = 1 << 41, 1 << 43
_MIN_DISTANCE, _SAME_GROUP = 0.5, 0.01
"""Angstrom: closest atoms; up to which a crystal may be found to have another group than the one it was made in."""


def as_batch(crystals: CrystalBatch | Sequence[Structure | Atoms], *, reduce: bool) -> CrystalBatch:
    """A float32 batch of any kind of crystals, Niggli-reduced if `reduce`."""
    if isinstance(crystals, SymmetricCrystals):
        # canonical already
        return crystals
    if not isinstance(crystals, CrystalBatch):
        crystals = _batch_of_objects(crystals)
    if not len(crystals):
        raise ValueError("expected at least one crystal, got none")
    if isinstance(crystals, SymmetricCrystals):
        # decoded crystals may have more symmetry than the group that they were decoded in, or another origin
        crystals = crystals.plain()
    if not reduce:
        return crystals.replace(frac_coords=crystals.frac_coords.float(), lattice=crystals.lattice.float())
    reduced = structures_to_batch([niggli_reduce(structure) for structure in crystals.structures()])
    return reduced.replace(properties=crystals.properties, material_ids=crystals.material_ids)


def _batch_of_objects(crystals: Sequence[Structure | Atoms]) -> CrystalBatch:
    from ase import Atoms
    from pymatgen.core import Structure

    if isinstance(crystals, Structure | Atoms):
        raise TypeError(f"expected a sequence of crystals, got one {type(crystals).__name__}; put it into a list")
    crystals = list(crystals)
    if not crystals:
        raise ValueError("expected at least one crystal, got none")
    structures = [crystal for crystal in crystals if isinstance(crystal, Structure)]
    atoms = [crystal for crystal in crystals if isinstance(crystal, Atoms)]
    if len(structures) == len(crystals):
        return structures_to_batch(structures)
    if len(atoms) == len(crystals):
        return atoms_to_batch(atoms)
    kinds = sorted({type(crystal).__name__ for crystal in crystals})
    raise TypeError(f"expected pymatgen structures alone or ASE atoms alone, got {', '.join(kinds)}")


def default_sampler(model: CDVAE, num_steps: int | None) -> Sampler:
    """The sampler that suits the model's noise, in `num_steps` steps: the probability-flow ODE.

    The published Gaussian score is none of the torus, so that it goes with the published sampler: annealed Langevin
    dynamics of `num_steps` levels.
    """
    steps = num_steps if num_steps is not None else model.config.num_steps
    if model.config.noise.coordinates == "gaussian":
        return LangevinSampler(num_levels=steps)
    return FlowSampler(num_steps=steps, sharpening=model.config.sharpening)


@torch.no_grad()
def decode(
    model: CDVAE,
    z: Tensor,
    *,
    seed: int = 0,
    crystal_ids: Tensor | None = None,
    num_steps: int | None = None,
    sampler: Sampler | None = None,
    limits: DecodingLimits | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> SymmetricCrystals:
    """One crystal for each code, in order.

    Args:
        model: the model.
        z: (num_crystals, latent_dim).
        seed: of the starting points and of the sampler's random numbers.
        crystal_ids: (num_crystals,) long, each crystal's number within the run; 0, 1, ... if None.
        num_steps: steps of the default sampler; more is slower and better.
        sampler: instead of the default one.
        limits: elements and numbers of atoms that the crystals keep to.
        batch_size: crystals at a time; None chooses by size.
        progress: called with (crystals done, crystals in all).
    """
    model.eval()
    if z.ndim != 2 or z.shape[1] != model.config.latent_dim:
        raise ValueError(f"codes must be (num_crystals, {model.config.latent_dim}), got {tuple(z.shape)}")
    if num_steps is not None and sampler is not None:
        raise ValueError("num_steps is for the default sampler; set the steps of `sampler` itself")
    if not len(z) or not bool(z.isfinite().all()):
        raise ValueError(f"expected at least one code, and finite ones, got {tuple(z.shape)} or NaN or infinity in it")
    z = z.to(model.lattice_coding.mean)
    if crystal_ids is None:
        crystal_ids = torch.arange(len(z), device=z.device)
    chosen = sampler if sampler is not None else default_sampler(model, num_steps)
    contents = read_contents(model, z, seed=seed, crystal_ids=crystal_ids, limits=limits)
    return decode_contents(
        model,
        z,
        contents,
        chosen,
        seed=seed,
        crystal_ids=crystal_ids,
        limits=limits,
        batch_size=batch_size,
        progress=progress,
    )


@torch.no_grad()
def decode_contents(
    model: CDVAE,
    z: Tensor,
    contents: Contents,
    sampler: Sampler,
    *,
    seed: int,
    crystal_ids: Tensor,
    limits: DecodingLimits | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> SymmetricCrystals:
    """As `decode`, for codes whose contents have been read."""
    parts, indices = [], []
    for part in batches_by_size(contents.orbits.num_atoms, batch_size):
        path = denoise_contents(
            model, z[part], contents.select(part), sampler, seed=seed, crystal_ids=crystal_ids[part], limits=limits
        )
        parts.append(to_crystals(deque(path, maxlen=1).pop()))
        indices.append(part)
        if progress is not None:
            progress(sum(map(len, indices)), len(z))
    return join(parts).select(torch.cat(indices).argsort())


def overlapping(crystals: CrystalBatch) -> Tensor:
    """(num_crystals,) bool: atoms closer than 0.5 angstrom, or a cell too flat to tell."""
    try:
        return shortest_distances(crystals) < _MIN_DISTANCE
    except ValueError:
        # one collapsed cell would have more images than memory holds; find it by itself
        if len(crystals) == 1:
            return torch.ones(1, dtype=torch.bool, device=crystals.lattice.device)
        halves = torch.arange(len(crystals), device=crystals.lattice.device).tensor_split(2)
        return torch.cat([overlapping(crystals.select(half)) for half in halves])


def _in_another_group(crystals: SymmetricCrystals, limits: DecodingLimits | None) -> Tensor:
    """(num_crystals,) bool: parameters that happen to give more symmetry than the group that was asked for."""
    wrong = torch.zeros(len(crystals), dtype=torch.bool, device=crystals.lattice.device)
    if limits is None or limits.space_groups is None:
        return wrong
    found = [group.number for group in space_group(crystals, _SAME_GROUP)]
    return torch.tensor([number not in limits.space_groups for number in found], device=wrong.device)


def batches_by_size(num_atoms: Tensor, batch_size: int | None) -> Iterator[Tensor]:
    """Indices of crystals of similar size, the smallest first."""
    order = num_atoms.argsort(stable=True)
    if batch_size is not None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        yield from order.split(batch_size)
        return
    pairs = num_atoms[order].square().cumsum(0)
    group = (pairs - 1) // _PAIRS_AT_ONCE
    yield from order.split(torch.unique_consecutive(group, return_counts=True)[1].tolist())


def start(model: CDVAE, z: Tensor, contents: Contents, *, seed: int, crystal_ids: Tensor) -> NoisyCrystals:
    """The noise that sampling starts from."""
    orbits = contents.orbits
    noise = CrystalNoise(seed, crystal_ids, orbits.num_orbits)
    process = model.processes.lattice
    normal = noise.normal_per_crystal(6, stream=_LATTICE_STREAM)
    parameters = process.start(model.lattice_head(z), normal, orbits)
    return NoisyCrystals(
        orbits=orbits,
        free=noise.uniform_per_row(3, stream=_START_STREAM) * orbits.is_free,
        elements=model.processes.types.start(contents.elements),
        lattice_parameters=parameters,
        lattice=process.space.primitive(parameters, orbits),
        pairs=orbits.pairs(),
    )


def denoise(
    model: CDVAE,
    z: Tensor,
    num_atoms: Tensor,
    sampler: Sampler,
    *,
    seed: int,
    crystal_ids: Tensor,
    limits: DecodingLimits | None = None,
) -> Iterator[NoisyCrystals]:
    """The start, then the crystals after each step of the sampler, for codes whose number of atoms is settled."""
    contents = read_contents(model, z, seed=seed, crystal_ids=crystal_ids, limits=limits, num_atoms=num_atoms)
    yield from denoise_contents(model, z, contents, sampler, seed=seed, crystal_ids=crystal_ids, limits=limits)


@torch.no_grad()
def denoise_contents(
    model: CDVAE,
    z: Tensor,
    contents: Contents,
    sampler: Sampler,
    *,
    seed: int,
    crystal_ids: Tensor,
    limits: DecodingLimits | None = None,
) -> Iterator[NoisyCrystals]:
    """As `denoise`, for codes whose contents have been read."""
    excluded = torch.ones(NUM_ELEMENTS, dtype=torch.bool, device=z.device)
    excluded[known_elements(model, limits) - 1] = False

    def predict(crystals: NoisyCrystals, t: Tensor) -> ScoreOutput:
        output: ScoreOutput = model.score_network(crystals, z, t)
        if limits is None or not model.processes.types.is_learned:
            return output
        # elements that are drawn on the way keep to the limits, too
        return replace(output, type_logits=output.type_logits.masked_fill(excluded, -torch.inf))

    crystals = start(model, z, contents, seed=seed, crystal_ids=crystal_ids)
    yield crystals
    noise = CrystalNoise(seed, crystal_ids, crystals.orbits.num_orbits)
    yield from sampler.steps(crystals, predict, model.processes, noise)


def to_crystals(noisy: NoisyCrystals) -> SymmetricCrystals:
    """Crystals in the frame that lengths and angles define; every orbit must have an element."""
    lattice = lattice_from_parameters(*lattice_parameters(noisy.lattice))
    return SymmetricCrystals(noisy.orbits, noisy.elements, noisy.free, lattice)


def sample(
    model: CDVAE,
    num_crystals: int,
    *,
    seed: int = 0,
    first_id: int = 0,
    num_atoms: int | None = None,
    conditions: Conditions | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    num_steps: int | None = None,
    sampler: Sampler | None = None,
    max_tries: int = 3,
    batch_size: int | None = None,
    codes: Callable[[Tensor, int], Tensor] | None = None,
    progress: Progress | None = None,
) -> SymmetricCrystals:
    """New crystals number `first_id`, `first_id` + 1, ... of the run `seed`.

    Args:
        model: the model.
        num_crystals: how many.
        seed: the run's seed.
        first_id: number of the first crystal within the run.
        num_atoms: in the primitive cell; short for a condition.
        conditions: what is asked for; all but properties holds by construction.
        guidance: see `sample_codes`.
        temperature: see `sample_codes`.
        num_steps: see `decode`.
        sampler: see `decode`.
        max_tries: a crystal with atoms closer than 0.5 angstrom, images of an atom itself included, or with more
            symmetry than the group that was asked for, is drawn anew, code and all, until it has been tried this often;
            1 takes what comes first, also where the critic of the compositions does not accept it.
        batch_size: see `decode`.
        codes: in place of `sample_codes`: from the crystals' numbers and a seed to their codes.
        progress: called with (crystals done, crystals in all), on the first try.
    """
    for name, value in (("num_crystals", num_crystals), ("max_tries", max_tries)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if num_steps is not None and sampler is not None:
        raise ValueError("num_steps is for the default sampler; set the steps of `sampler` itself")
    check_num_atoms(model, num_atoms)
    crystal_ids = torch.arange(first_id, first_id + num_crystals, device=model.device)
    chosen = sampler if sampler is not None else default_sampler(model, num_steps)
    if num_atoms is not None and model.prior is not None:
        conditions = replace(conditions or Conditions(), num_atoms=num_atoms)
    limits = None if conditions is None else conditions.limits()

    def from_prior(ids: Tensor, own: int) -> Tensor:
        return sample_codes(
            model,
            ids,
            seed=own,
            num_atoms=num_atoms,
            conditions=conditions,
            guidance=guidance,
            temperature=temperature,
            tries=1 if max_tries == 1 else CODE_TRIES,
        )

    def draw(ids: Tensor, attempt: int) -> SymmetricCrystals:
        own = seed + (attempt << 48)
        z = (codes or from_prior)(ids, own)
        show = progress if attempt == 0 else None
        return decode(
            model, z, seed=own, crystal_ids=ids, sampler=chosen, limits=limits, batch_size=batch_size, progress=show
        )

    crystals = draw(crystal_ids, 0)
    for attempt in range(1, max_tries):
        bad = (overlapping(crystals) | _in_another_group(crystals, limits)).nonzero().squeeze(-1)
        if not len(bad):
            break
        source = torch.arange(num_crystals, device=model.device)
        source[bad] = num_crystals + torch.arange(len(bad), device=model.device)
        crystals = join([crystals, draw(crystal_ids[bad], attempt)]).select(source)
    return crystals
