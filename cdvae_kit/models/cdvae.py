"""The Crystal Diffusion Variational Autoencoder: its loss, its codes, its crystals.

Source: Xie et al., "Crystal diffusion variational autoencoder for periodic material generation" (ICLR 2022,
arXiv 2110.06197). What departs from it is in `CDVAEConfig`, field by field, and in the README.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.symmetric import SymmetricCrystals, describe, without_symmetry
from cdvae_kit.diffusion.samplers import Processes, Sampler
from cdvae_kit.diffusion.state import NoisyCrystals
from cdvae_kit.graph import PeriodicGraph, neighbor_list
from cdvae_kit.models import decoding, pretrained
from cdvae_kit.models.condition_kinds import build_conditions
from cdvae_kit.models.conditions import Conditions
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.contents import read_counts
from cdvae_kit.models.critic import CompositionCritic
from cdvae_kit.models.heads import element_counts
from cdvae_kit.models.lattice_coding import LatticeCoding
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits
from cdvae_kit.models.networks import (
    build_composition_head,
    build_coordinate_process,
    build_encoder,
    build_lattice_process,
    build_score_network,
    build_type_process,
)
from cdvae_kit.models.outside import reasons_outside, refuse
from cdvae_kit.models.prior import LatentPrior
from cdvae_kit.models.prototypes import KnownPrototypes
from cdvae_kit.models.sites import SiteEmbedding, Surroundings
from cdvae_kit.models.symmetry_heads import SymmetryHead
from cdvae_kit.nn.mlp import ResidualMLP
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


class CDVAE(pretrained.PretrainedModule):
    """Crystals to codes z and back, and new crystals from the prior.

    Args:
        config: the settings; they are stored in every checkpoint.

    >>> model = CDVAE(CDVAEConfig(max_atoms=4, latent_dim=8))
    >>> model.config.noise.types
    'fixed'
    """

    _EARLIER_NAMES: ClassVar[Mapping[str, str]] = {"property_deviation": "property_std"}

    property_mean: Tensor
    property_std: Tensor
    known_elements: Tensor

    def __init__(self, config: CDVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        """What is known of the weights: data, split, seed, device, time, metrics."""
        self.encoder = build_encoder(config)
        self.score_network = build_score_network(config)
        self.composition_head = build_composition_head(config)
        self.num_atoms_head = ResidualMLP(config.latent_dim, config.hidden_dim, config.max_atoms)
        self.symmetry_head = SymmetryHead(config.latent_dim, config.hidden_dim, NUM_ELEMENTS)
        self.lattice_head = ResidualMLP(config.latent_dim, config.hidden_dim, 6)
        # without properties it is there, and as small as can be
        width = config.hidden_dim if config.properties else 1
        self.property_head = ResidualMLP(config.latent_dim, width, max(1, len(config.properties)))
        self.lattice_coding = LatticeCoding(config.lattice)
        self.conditions = build_conditions(config, self._property_scale)
        """What the prior can be told of a crystal."""
        self.prior = LatentPrior(config.prior, config.latent_dim, self.conditions) if config.prior is not None else None
        is_judged = self.prior is not None and config.composition == "counts" and config.critic > 0
        self.critic = CompositionCritic(config.critic) if is_judged else None
        """Of the compositions that the prior gives."""
        keeps = config.prototypes and config.symmetry == "orbits"
        self.prototypes = KnownPrototypes() if keeps else None
        """Which orbits the training crystals of each composition have."""
        self.register_buffer("property_mean", torch.zeros(max(1, len(config.properties))))
        self.register_buffer("property_std", torch.ones(max(1, len(config.properties))))
        self.register_buffer("known_elements", torch.zeros(0, dtype=torch.long))
        self.surroundings = Surroundings(NUM_ELEMENTS)
        self.processes = Processes(
            coordinates=build_coordinate_process(config),
            types=build_type_process(config.noise),
            lattice=build_lattice_process(config.noise, self.lattice_coding),
        )
        """One noise process a field."""

    def _property_scale(self, index: int) -> tuple[Tensor, Tensor]:
        return self.property_mean[index], self.property_std[index]

    @property
    def device(self) -> torch.device:
        return self.lattice_coding.mean.device

    def _contents(self) -> str:
        config, num_elements = self.config, len(self.known_elements)
        known = f", {num_elements} element{'s' * (num_elements != 1)}" if num_elements else ", not trained yet"
        way = "with their space groups" if config.symmetry == "orbits" else "without symmetry"
        properties = f", properties {', '.join(config.properties)}" if config.properties else ""
        return (
            f"crystals of up to {config.max_atoms} atoms{known}, {way}; codes of {config.latent_dim} numbers"
            f"{properties}; {super()._contents()}"
        )

    # -- training ------------------------------------------------------------------------------------------------

    def prepare(self, crystals: CrystalBatch, *, progress: Progress | None = None) -> SymmetricCrystals:
        """The crystals as the networks see them: in their canonical description, or as they are without symmetry."""
        if isinstance(crystals, SymmetricCrystals):
            return crystals
        if self.config.symmetry == "none":
            return without_symmetry(crystals)
        return describe(crystals, tolerance=self.config.tolerance, progress=progress)

    def fit_statistics(self, crystals: SymmetricCrystals) -> None:
        """Scales of lattice and properties, and the elements, groups and positions that occur in the training set."""
        missing = [name for name in self.config.properties if name not in crystals.properties]
        if missing:
            raise ValueError(
                f"the model predicts {missing}, which the crystals do not have; they have {sorted(crystals.properties)}"
            )
        self._check_sizes(crystals)
        self.lattice_coding.fit(crystals.lattice, crystals.orbits)
        self.symmetry_head.fit(crystals.orbits)
        if self.prototypes is not None:
            self.prototypes.fit(crystals)
        self.known_elements = torch.unique(crystals.atomic_numbers).to(self.device)
        for i, name in enumerate(self.config.properties):
            values = crystals.properties[name]
            values = values[values.isfinite()]
            if len(values) < 2:
                raise ValueError(f"property {name!r} has {len(values)} values in the training crystals; it needs 2")
            self.property_mean[i] = values.mean()
            self.property_std[i] = values.std().clamp_min(1e-6)

    def graph(self, crystals: SymmetricCrystals) -> PeriodicGraph:
        """The edges that the encoder sees: those into the first atom of each orbit, or all of them."""
        settings = self.config.encoder
        whole = neighbor_list(crystals, settings.cutoff, max_neighbors=settings.max_neighbors, tie_tolerance=1e-2)
        if settings.kind != "equivariant":
            return whole
        return whole.into(crystals.orbits.first_atom)

    def posterior(self, crystals: SymmetricCrystals, graph: PeriodicGraph) -> tuple[Tensor, Tensor]:
        """mu and log_var, each (num_crystals, latent_dim)."""
        return self.encoder(crystals, graph, self.lattice_coding.encode(crystals.lattice, crystals.orbits))

    def loss(
        self, crystals: SymmetricCrystals, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The terms of the loss, unweighted, each a mean over crystals or orbits; see `total_loss`."""
        mu, log_var = self.posterior(crystals, graph)
        noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        z = mu + torch.exp(0.5 * log_var) * noise
        orbits, elements = crystals.orbits, crystals.elements
        parameters = self.lattice_coding.encode(crystals.lattice, orbits)
        counts = element_counts(crystals.atomic_numbers, crystals.batch, len(crystals))
        guess = self.lattice_coding.project(self.lattice_head(z), orbits)
        terms = {
            "kl": 0.5 * (mu.square() + log_var.exp() - 1.0 - log_var).sum(-1).mean(),
            "num_atoms": functional.cross_entropy(self.num_atoms_head(z), crystals.num_atoms - 1),
            "lattice_head": functional.mse_loss(guess, parameters),
            "composition": self.composition_head.loss(z, counts, crystals.num_atoms).mean(),
        }
        if self.config.symmetry == "orbits":
            group, positions = self.symmetry_head.loss(z, orbits, elements, generator=generator)
            terms |= {"group": group.mean(), "positions": positions.mean()}
        sites = getattr(self.score_network, "sites", None)
        if isinstance(sites, SiteEmbedding) and self.config.loss_weights.sites:
            number = orbits.numbers(elements)
            rows = sites(elements, z, orbits, number)
            waves = sites.waves(rows, z, orbits, number)
            seen = graph if self.config.encoder.kind == "equivariant" else graph.into(orbits.first_atom)
            around = self.surroundings(crystals, seen)
            terms["sites"] = sites.loss(rows, waves, around, crystals.free, orbits, orbits.anchors(elements))
        if self.config.properties:
            terms["property"] = self._property_loss(z, crystals)
        draws = self.config.draws_per_crystal
        if draws > 1:
            again = torch.arange(len(crystals), device=z.device).repeat(draws)
            crystals, z, parameters = crystals.select(again), z[again], parameters[again]
        return terms | self._denoising_loss(crystals, z, parameters, generator)

    def decoder_loss(
        self, crystals: SymmetricCrystals, graph: PeriodicGraph, *, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """As `loss`, of the score network alone: codes stay what they are, and so do prior, heads and predictors.

        The first of each crystal's draws has its code as it is; the others have it blurred, to a level drawn uniformly,
        where the network knows of it.
        """
        with torch.no_grad():
            mu, log_var = self.posterior(crystals, graph)
            noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
            z = mu + torch.exp(0.5 * log_var) * noise
        parameters = self.lattice_coding.encode(crystals.lattice, crystals.orbits)
        draws, blur = self.config.draws_per_crystal, None
        if draws > 1:
            again = torch.arange(len(crystals), device=z.device).repeat(draws)
            crystals, z, parameters = crystals.select(again), z[again], parameters[again]
        if self.config.score_network.knows_blur and self.prior is not None:
            blur = torch.rand(len(z), generator=generator, device=z.device, dtype=z.dtype)
            blur[: len(z) // draws] = 0.0
            normal = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
            z = torch.where(blur.unsqueeze(-1) > 0.0, self.prior.blurred(z, blur, normal), z)
        return self._denoising_loss(crystals, z, parameters, generator, blur)

    def _denoising_loss(
        self,
        crystals: SymmetricCrystals,
        z: Tensor,
        parameters: Tensor,
        generator: torch.Generator | None,
        blur: Tensor | None = None,
    ) -> dict[str, Tensor]:
        settings, processes = self.config.noise, self.processes
        orbits, elements = crystals.orbits, crystals.elements
        batch = orbits.batch
        t = torch.rand(len(crystals), generator=generator, device=z.device, dtype=z.dtype).pow(settings.time_power)
        noisy_parameters, lattice_target = processes.lattice.perturb(parameters, t, orbits, generator=generator)
        lattice = crystals.lattice
        if processes.lattice.is_learned:
            lattice = processes.lattice.space.primitive(noisy_parameters, orbits)
        # of the noisy cell, which is all that a sampler has
        level = processes.coordinates.level(t, lattice)
        free, target = processes.coordinates.perturb(
            crystals.free, level, orbits=orbits, elements=elements, lattice=crystals.lattice, generator=generator
        )
        # published types need the composition; its own loss trains the head, so no gradient from here
        fractions = torch.empty(0, device=z.device)
        if settings.types == "published":
            fractions = self.composition_head.fractions(z, crystals.num_atoms).detach()[batch]
        noisy_elements = processes.types.perturb(elements, t[batch], fractions, alike=orbits.alike, generator=generator)
        which = orbits.numbers(elements), orbits.anchors(elements)
        noisy = NoisyCrystals(orbits, free, noisy_elements, noisy_parameters, lattice, orbits.pairs(), *which)
        output = self.score_network(noisy, z, t) if blur is None else self.score_network(noisy, z, t, blur)
        error = orbits.without_drift((output.free - target) * orbits.is_free).square().sum(-1)
        weight = processes.coordinates.loss_weight(level)[batch]
        # a mean over orbits that have something free, three parameters counted as one atom
        there = orbits.is_free.sum().clamp_min(1) / 3.0
        terms = {"coordinates": (weight * error).sum() / there}
        if processes.types.is_learned:
            logits = output.type_logits
            terms["types"] = processes.types.loss(logits, elements, noisy_elements, t[batch]).mean()
        if processes.lattice.is_learned:
            wrong = processes.lattice.space.project_change(output.lattice - lattice_target, orbits)
            terms["lattice"] = wrong.square().mean()
        return terms

    def _property_loss(self, z: Tensor, crystals: CrystalBatch) -> Tensor:
        truth = torch.stack([crystals.properties[name] for name in self.config.properties], dim=-1)
        there = truth.isfinite()
        scaled = (torch.where(there, truth, self.property_mean) - self.property_mean) / self.property_std
        error = torch.where(there, (self.property_head(z) - scaled).square(), 0.0)
        return error.sum() / there.sum().clamp_min(1)

    def total_loss(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms of `loss`."""
        weights = self.config.loss_weights
        return torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()

    def element_counts(self, crystals: CrystalBatch) -> Tensor:
        """(num_crystals, num_elements) long: how many atoms of each element; column 0 is hydrogen."""
        return element_counts(crystals.atomic_numbers, crystals.batch, len(crystals))

    def drawn_counts(self, crystal_ids: Tensor, *, seed: int) -> Tensor:
        """(num_crystals, num_elements) long: compositions read from codes of the prior, whatever the critic says."""
        ids = crystal_ids.to(self.device)
        return read_counts(self, decoding.sample_codes(self, ids, seed=seed, tries=1))

    # -- codes and crystals --------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self,
        crystals: CrystalBatch | Sequence[Structure | Atoms],
        *,
        batch_size: int = 256,
        seed: int | None = None,
        reduce: bool = True,
        allow_outside: bool = False,
    ) -> Tensor:
        """Codes z, (num_crystals, latent_dim): the posterior's mean, or a draw from it if a seed is given.

        Args:
            crystals: a batch, or pymatgen structures, or ASE atoms.
            batch_size: crystals at a time.
            seed: draw from the posterior with this seed, as the published reconstruction does.
            reduce: bring crystals of a model without symmetry to their Niggli cells first, which it is trained on; the
                canonical description needs no such step.
            allow_outside: encode crystals that the model has never seen the like of, too; see `outside`.

        Raises:
            OutsideModelError: crystals lie outside the model, and `allow_outside` is not given.
        """
        batch = self._as_prepared(crystals, reduce=reduce)
        if allow_outside:
            self._check_sizes(batch)
        else:
            refuse(reasons_outside(self, batch))
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        parts = [
            torch.arange(len(batch), device=self.device)[i : i + batch_size] for i in range(0, len(batch), batch_size)
        ]
        moments = []
        for part in parts:
            some = batch.select(part)
            moments.append(self.posterior(some, self.graph(some)))
        mu, log_var = (torch.cat(values) for values in zip(*moments, strict=True))
        if not allow_outside:
            refuse(reasons_outside(self, batch, mu))
        if seed is None:
            return mu
        noise = decoding.latent_noise(seed, torch.arange(len(mu), device=self.device), self.config.latent_dim)
        return mu + torch.exp(0.5 * log_var) * noise

    def _as_prepared(self, crystals: CrystalBatch | Sequence[Structure | Atoms], *, reduce: bool) -> SymmetricCrystals:
        batch = decoding.as_batch(crystals, reduce=reduce and self.config.symmetry == "none")
        return self.prepare(batch).to(self.device)

    @torch.no_grad()
    def outside(self, crystals: CrystalBatch | Sequence[Structure | Atoms]) -> list[str | None]:
        """Why each crystal lies outside what the model was trained on, or None: elements, size, group, code."""
        batch = self._as_prepared(crystals, reduce=True)
        reasons = reasons_outside(self, batch)
        inside = [i for i, reason in enumerate(reasons) if reason is None]
        if inside:
            some = batch.select(inside)
            mu = self.encode(some, reduce=False, allow_outside=True)
            for i, reason in zip(inside, reasons_outside(self, some, mu), strict=True):
                reasons[i] = reason
        return reasons

    def decode(
        self,
        z: Tensor,
        *,
        seed: int = 0,
        num_steps: int | None = None,
        sampler: Sampler | None = None,
        limits: DecodingLimits | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> CrystalBatch:
        """One crystal for each code; see `decoding.decode`."""
        return decoding.decode(
            self,
            z,
            seed=seed,
            num_steps=num_steps,
            sampler=sampler,
            limits=limits,
            batch_size=batch_size,
            progress=progress,
        )

    def sample(
        self,
        num_crystals: int,
        *,
        seed: int = 0,
        num_atoms: int | None = None,
        conditions: Conditions | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
        num_steps: int | None = None,
        sampler: Sampler | None = None,
        max_tries: int = 3,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> CrystalBatch:
        """New crystals from the prior; see `decoding.sample`.

        The same seed gives the same crystals whatever the batch size: crystal i of a run depends on (seed, i) alone.
        A crystal whose atoms overlap is drawn anew, at most `max_tries` times in all; 1 takes what comes first.
        """
        return decoding.sample(
            self,
            num_crystals,
            seed=seed,
            num_atoms=num_atoms,
            conditions=conditions,
            guidance=guidance,
            temperature=temperature,
            num_steps=num_steps,
            sampler=sampler,
            max_tries=max_tries,
            batch_size=batch_size,
            progress=progress,
        )

    @torch.no_grad()
    def predict_properties(self, z: Tensor) -> dict[str, Tensor]:
        """Each of the model's properties from the codes, (num_crystals,), in the data's own unit.

        Raises:
            ValueError: the model has been trained without properties.
        """
        if not self.config.properties:
            raise ValueError(
                "this model has no property head: it was trained without properties. Train one with "
                "CDVAEConfig(properties=(...)), or fit a LatentPredictor to its codes (train-predictor --from z)"
            )
        values = self.property_head(z) * self.property_std + self.property_mean
        return {name: values[:, i] for i, name in enumerate(self.config.properties)}

    # -- files ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], *, device: str = "auto") -> CDVAE:
        """The model of a checkpoint or a run, one that the package carries (`pretrained_names`), or one of the Hub.

        Args:
            name_or_path: a folder, which wins over a name of the package's own; or `hf:owner/name` for a repository of
                the Hugging Face Hub (extra `hub`), with `@revision` for one state of it.
            device: `auto` takes CUDA, then Apple's MPS, then the CPU; or any name that torch knows.
        """
        config, tensors, card = pretrained.load(name_or_path)
        model = pretrained.build(cls, config, tensors, name_or_path)
        model.known_elements = torch.empty_like(tensors["known_elements"])
        pretrained.put_weights(model, tensors, name_or_path)
        model.card = card
        return model.eval().to(pretrained.choose_device(device))

    def _check_sizes(self, crystals: CrystalBatch) -> None:
        most = int(crystals.num_atoms.max())
        if most > self.config.max_atoms:
            raise ValueError(
                f"a crystal has {most} atoms; this model takes at most {self.config.max_atoms} (max_atoms)"
            )
        heaviest = int(crystals.atomic_numbers.max())
        if heaviest > NUM_ELEMENTS:
            raise ValueError(f"the models know elements up to Z = {NUM_ELEMENTS}, got Z = {heaviest}")
