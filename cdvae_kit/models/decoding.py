"""From codes to crystals: what `CDVAE.decode` and `CDVAE.sample` do.

Crystals are sampled in batches of similar size, so that small ones do not wait for large ones, and come back in the
order that they were asked for. Random numbers come from `CrystalNoise`: from the seed and the crystal's own number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.contacts import closest_contacts
from cdvae_kit.crystal.conversion import atoms_to_batch, structures_to_batch
from cdvae_kit.crystal.lattice import lattice_from_parameters, lattice_parameters, volume
from cdvae_kit.crystal.periodic_images import shortest_distances
from cdvae_kit.crystal.symmetric import SymmetricCrystals, join
from cdvae_kit.crystal.symmetry import niggli_reduce, space_group
from cdvae_kit.diffusion.samplers import FlowSampler, LangevinSampler, Sampler
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.models.codes import CODE_TRIES, check_num_atoms
from cdvae_kit.models.codes import codes_of_compositions as codes_of_compositions
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

_PAIRS_AT_ONCE, _PAIRS_AT_ONCE_ON_CPU = 400_000, 10_000
"""Pairs of atoms in a batch of the automatic size: some 2 GiB at the default width; on a CPU what its caches hold."""

_START_STREAM, _LATTICE_STREAM, _BLUR_STREAM = 1 << 41, 1 << 43, 1 << 45
SOUND = 0.6
"""Least distance of two atoms over the sum of their covalent radii, below which a crystal is drawn anew."""
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

    The published Gaussian score is that of a normal distribution in free space, not on the torus. It therefore goes
    with the published sampler, annealed Langevin dynamics of `num_steps` levels.
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
    counts: Tensor | None = None,
    blur: float = 0.0,
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
        counts: (num_crystals, num_elements) long, atoms of each element, where that is settled.
        blur: how far codes are blurred before the score network sees them, in [0, 1]; contents are read from them as
            they are. See `CDVAEConfig.blur`.
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
    contents = read_contents(model, z, seed=seed, crystal_ids=crystal_ids, limits=limits, counts=counts)
    return decode_contents(
        model,
        z,
        contents,
        chosen,
        seed=seed,
        crystal_ids=crystal_ids,
        limits=limits,
        blur=blur,
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
    blur: float = 0.0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> SymmetricCrystals:
    """As `decode`, for codes whose contents have been read."""
    parts, indices = [], []
    for part in batches_by_size(contents.orbits.num_atoms, batch_size):
        own: dict[str, Any] = {"seed": seed, "crystal_ids": crystal_ids[part], "limits": limits, "blur": blur}
        path = denoise_contents(model, z[part], contents.select(part), sampler, **own)
        crystals = to_crystals(deque(path, maxlen=1).pop())
        parts.append(crystals if blur == 0.0 else _of_volume_read(model, z[part], crystals))
        indices.append(part)
        if progress is not None:
            progress(sum(map(len, indices)), len(z))
    return join(parts).select(torch.cat(indices).argsort())


def _of_volume_read(model: CDVAE, z: Tensor, crystals: SymmetricCrystals) -> SymmetricCrystals:
    """The same crystals, their cells scaled to the volumes that the lattice head reads from z.

    A blurred code tells the score network the volume less well than the code as it is tells the head.
    """
    coding, orbits = model.lattice_coding, crystals.orbits
    read = coding.primitive(coding.project(model.lattice_head(z), orbits), orbits)
    scale = (volume(read) / volume(crystals.lattice)).pow(1.0 / 3.0)
    return crystals.replace(lattice=crystals.lattice * scale.view(-1, 1, 1))


def soundness(crystals: CrystalBatch) -> Tensor:
    """(num_crystals,) the least distance of atoms over the sum of their covalent radii, at most `SOUND`.

    0 where atoms are closer than 0.5 angstrom, or the cell is too flat to tell. Of 18,000 training crystals of Perov-5,
    Carbon-24 and MP-20 none has less than 0.62.
    """
    try:
        contacts = closest_contacts(crystals, SOUND)
        return contacts.masked_fill(shortest_distances(crystals) < _MIN_DISTANCE, 0.0)
    except ValueError:
        # one collapsed cell would have more images than memory holds; find it by itself
        if len(crystals) == 1:
            return crystals.lattice.new_zeros(1)
        halves = torch.arange(len(crystals), device=crystals.lattice.device).tensor_split(2)
        return torch.cat([soundness(crystals.select(half)) for half in halves])


Drawn = tuple[SymmetricCrystals, Tensor]
"""Crystals and the codes (num_crystals, latent_dim) that they were decoded from."""


def until_sound(
    draw: Callable[[Tensor, int], Drawn],
    in_another_group: Callable[[SymmetricCrystals, Tensor], Tensor],
    num_crystals: int,
    *,
    device: torch.device,
    tries: int,
) -> Drawn:
    """Crystals 0, 1, ...; those whose atoms are too close, or that have another group than was asked for, drawn anew.

    Args:
        draw: makes the crystals of some rows (num_rows,) in attempt 0, 1, ...
        in_another_group: (num_rows,) bool of crystals and their rows.
        num_crystals: how many.
        device: of the rows.
        tries: attempts in all. Of several that are not sound the one is kept whose atoms are farthest apart.
    """
    rows = torch.arange(num_crystals, device=device)
    crystals, z = draw(rows, 0)
    worth = soundness(crystals).masked_fill(in_another_group(crystals, rows), -1.0)
    for attempt in range(1, tries):
        bad = (worth < SOUND).nonzero().squeeze(-1)
        if not len(bad):
            break
        new, new_z = draw(bad, attempt)
        of_new = soundness(new).masked_fill(in_another_group(new, bad), -1.0)
        better = (of_new > worth[bad]).nonzero().squeeze(-1)
        taken = bad[better]
        source = rows.clone()
        source[taken] = num_crystals + better
        crystals = join([crystals, new]).select(source)
        z[taken], worth[taken] = new_z[better], of_new[better]
    return crystals, z


def in_another_group(crystals: SymmetricCrystals, limits: DecodingLimits | None) -> Tensor:
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
    group = (pairs - 1) // (_PAIRS_AT_ONCE_ON_CPU if pairs.device.type == "cpu" else _PAIRS_AT_ONCE)
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
    blur: float = 0.0,
) -> Iterator[NoisyCrystals]:
    """As `denoise`, for codes whose contents have been read."""
    excluded = torch.ones(NUM_ELEMENTS, dtype=torch.bool, device=z.device)
    excluded[known_elements(model, limits) - 1] = False
    told: tuple[Tensor, ...] = (z,) if blur == 0.0 else _blurred(model, z, blur, seed=seed, crystal_ids=crystal_ids)

    def predict(crystals: NoisyCrystals, t: Tensor) -> ScoreOutput:
        output: ScoreOutput = model.score_network(crystals, told[0], t, *told[1:])
        if limits is None or not model.processes.types.is_learned:
            return output
        # elements that are drawn on the way keep to the limits, too
        return replace(output, type_logits=output.type_logits.masked_fill(excluded, -torch.inf))

    crystals = start(model, z, contents, seed=seed, crystal_ids=crystal_ids)
    yield crystals
    noise = CrystalNoise(seed, crystal_ids, crystals.orbits.num_orbits)
    yield from sampler.steps(crystals, predict, model.processes, noise)


def _blurred(model: CDVAE, z: Tensor, blur: float, *, seed: int, crystal_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Blurred codes (num_crystals, latent_dim), and how far (num_crystals,)."""
    if not (0.0 <= blur <= 1.0 and model.config.score_network.knows_blur and model.prior is not None):
        raise ValueError(
            f"codes can be blurred by 0 to 1, for a model with a learned prior whose score network knows of it; got "
            f"blur={blur} and score_network.knows_blur={model.config.score_network.knows_blur}"
        )
    level = torch.full((len(z),), blur, device=z.device, dtype=z.dtype)
    normal = CrystalNoise(seed, crystal_ids).normal_per_crystal(model.config.latent_dim, stream=_BLUR_STREAM)
    return model.prior.blurred(z, level, normal), level


def to_crystals(noisy: NoisyCrystals) -> SymmetricCrystals:
    """Crystals in the frame that lengths and angles define; every orbit must have an element."""
    lattice = lattice_from_parameters(*lattice_parameters(noisy.lattice))
    return SymmetricCrystals(noisy.orbits, noisy.elements, noisy.free, lattice)


def _holds_compositions(model: CDVAE) -> bool:
    """Whether a prior can be told a composition, and crystals then have it."""
    config = model.config
    whole = config.symmetry == "orbits" and config.composition == "counts" and config.noise.keeps_composition
    return whole and model.prior is not None


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
        max_tries: a crystal whose atoms are too close (`soundness`), images of an atom itself included, or with more
            symmetry than the group that was asked for, is drawn anew, code and all but for its composition where the
            model can hold that, until it has been tried this often; of several bad ones the best is kept. 1 takes what
            comes first, also where the critic of the compositions does not accept it.
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

    first: list[Tensor] = []
    holds = codes is None and _holds_compositions(model) and (limits is None or limits.sites is None)

    def draw(rows: Tensor, attempt: int) -> Drawn:
        ids, own = crystal_ids[rows], seed + (attempt << 48)
        # codes that someone else gives are taken at their word
        options: dict[str, Any] = {"limits": limits, "blur": model.config.blur if codes is None else 0.0}
        options |= {"batch_size": batch_size, "progress": progress if not attempt else None}
        if attempt and holds:
            # else those would be redrawn most often, and so lost, whose crystals are the hardest
            options["counts"] = first[0][rows]
            told: dict[str, Any] = {"conditions": conditions, "guidance": guidance, "temperature": temperature}
            z = codes_of_compositions(model, ids, first[0][rows], seed=own, **told)
        else:
            z = (codes or from_prior)(ids, own)
        crystals = decode(model, z, seed=own, crystal_ids=ids, sampler=chosen, **options)
        if not attempt:
            first.append(model.element_counts(crystals))
        return crystals, z

    def wrong(crystals: SymmetricCrystals, rows: Tensor) -> Tensor:
        return in_another_group(crystals, limits)

    return until_sound(draw, wrong, num_crystals, device=model.device, tries=max_tries)[0]
