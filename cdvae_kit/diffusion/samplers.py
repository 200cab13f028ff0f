"""From noise to crystals: how the fields are stepped together.

A sampler knows the processes and calls `predict`; it knows no network. It steps the free parameters of orbits, so that
every state on the way has the symmetry of its group. All randomness comes from `CrystalNoise`, by crystal, orbit and
step, so that the batch a crystal is sampled in does not change it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from cdvae_kit.crystal.lattice import volume, wrap_frac_coords
from cdvae_kit.diffusion.coordinates import CoordinateProcess, in_metric
from cdvae_kit.diffusion.lattice import LatticeProcess
from cdvae_kit.diffusion.sampler_names import SAMPLERS as SAMPLERS
from cdvae_kit.diffusion.sampler_names import WITHOUT_SCORE
from cdvae_kit.diffusion.state import NoisyCrystals, ScoreOutput
from cdvae_kit.diffusion.types import TypeProcess
from cdvae_kit.seeding import CrystalNoise

Predict = Callable[[NoisyCrystals, Tensor], ScoreOutput]
"""Noisy crystals and the time (num_crystals,) to the network's prediction."""


@dataclass(frozen=True)
class Processes:
    """One noise process a field."""

    coordinates: CoordinateProcess
    types: TypeProcess
    lattice: LatticeProcess


class Sampler(Protocol):
    """Steps noisy crystals from t = 1 to t = 0."""

    def steps(
        self, crystals: NoisyCrystals, predict: Predict, processes: Processes, noise: CrystalNoise
    ) -> Iterator[NoisyCrystals]:
        """The crystals after each step; the last are the finished ones."""
        ...


def _times(crystals: NoisyCrystals, t: float) -> Tensor:
    return torch.full((crystals.num_crystals,), t, dtype=crystals.free.dtype, device=crystals.free.device)


def _without_drift(free: Tensor, crystals: NoisyCrystals) -> Tensor:
    """Predictions of what is free, less the drift along polar axes: where a crystal lies there means nothing."""
    return crystals.orbits.without_drift(free * crystals.orbits.is_free)


def _per_orbit(values: Tensor, crystals: NoisyCrystals) -> Tensor:
    return values.index_select(0, crystals.orbits.batch)


def _next_types_and_lattice(
    crystals: NoisyCrystals, output: ScoreOutput, t: Tensor, t_next: Tensor, processes: Processes, uniform: Tensor
) -> NoisyCrystals:
    """Types and lattice stepped from t to t_next; coordinates as they are."""
    of_orbit = _per_orbit(t, crystals), _per_orbit(t_next, crystals)
    elements = processes.types.step(
        crystals.elements, output.type_logits, *of_orbit, uniform, alike=crystals.orbits.alike
    )
    if not processes.lattice.is_learned:
        return replace(crystals, elements=elements)
    parameters = processes.lattice.step(crystals.lattice_parameters, output.lattice, t, t_next, crystals.orbits)
    lattice = processes.lattice.space.primitive(parameters, crystals.orbits)
    return replace(crystals, elements=elements, lattice_parameters=parameters, lattice=lattice)


@dataclass(frozen=True)
class FlowSampler:
    """The probability-flow ODE in few steps: Euler (order 1) or Heun (order 2, two network calls a step).

    Attributes:
        num_steps: steps from noise to data.
        method: the integrator.
        sharpening: the coordinates' velocity is multiplied by 1 + sharpening (1 - t), never past the predicted clean
            point. Late in the path this takes back what earlier steps left over; 0 is the plain ODE.
    """

    num_steps: int = 50
    method: Literal["euler", "heun"] = "euler"
    sharpening: float = 0.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.sharpening < 0.0:
            raise ValueError(f"sharpening must not be negative, got {self.sharpening}")
        if self.method == "heun" and self.sharpening:
            raise ValueError("sharpening changes the ODE step by step, so it goes with method='euler' only")

    def steps(
        self, crystals: NoisyCrystals, predict: Predict, processes: Processes, noise: CrystalNoise
    ) -> Iterator[NoisyCrystals]:
        for step in range(self.num_steps):
            t = _times(crystals, 1.0 - step / self.num_steps)
            t_next = _times(crystals, 1.0 - (step + 1) / self.num_steps)
            # the level is the cell's at the start of the step, so that both ends speak of the same cell
            level = processes.coordinates.level(t, crystals.lattice)
            next_level = processes.coordinates.level(t_next, crystals.lattice)
            if step == self.num_steps - 1:
                next_level = torch.zeros_like(next_level)
            output = predict(crystals, t)
            velocity = _without_drift(output.free, crystals)
            change = (next_level - level) * (1.0 + self.sharpening * (1.0 - t))
            change = torch.maximum(change, -level)
            uniform = noise.uniform_per_row(2, stream=step)
            stepped = _next_types_and_lattice(crystals, output, t, t_next, processes, uniform)
            moved = crystals.free + _per_orbit(change, crystals).unsqueeze(-1) * velocity
            if self.method == "heun" and step < self.num_steps - 1:
                there = predict(replace(stepped, free=wrap_frac_coords(moved)), t_next)
                # the other end's levels are those of its own cell: else a cell that changes makes this order 1
                change_there = processes.coordinates.level(t_next, stepped.lattice)
                change_there = change_there - processes.coordinates.level(t, stepped.lattice)
                slope = _per_orbit(change, crystals).unsqueeze(-1) * velocity
                slope_there = _per_orbit(change_there, crystals).unsqueeze(-1) * _without_drift(there.free, crystals)
                moved = crystals.free + 0.5 * (slope + slope_there)
                both = replace(output, lattice=0.5 * (output.lattice + there.lattice))
                stepped = _next_types_and_lattice(crystals, both, t, t_next, processes, uniform)
            crystals = replace(stepped, free=wrap_frac_coords(moved))
            yield crystals


@dataclass(frozen=True)
class LangevinSampler:
    """Annealed Langevin dynamics, with or without a predictor between the levels.

    Source: Song and Ermon, arXiv 1907.05600, algorithm 1; with `predictor`, Song et al., arXiv 2011.13456,
    algorithm 4 (variance exploding). CDVAE uses 50 levels of 100 steps at step_size 1e-4, no predictor.

    Attributes:
        num_levels: noise levels.
        steps_per_level: Langevin steps at each level.
        step_size: the step at a level is step_size x (sigma / sigma of the last level)^2 square angstrom with
            sigma the level in angstrom, as published.
        signal_to_noise: if set, the step is (signal_to_noise x level)^2 x 2 instead, relative to each level.
        predictor: take a reverse-diffusion step to the level before its Langevin steps.
    """

    num_levels: int = 50
    steps_per_level: int = 100
    step_size: float = 1e-4
    signal_to_noise: float | None = None
    predictor: bool = False

    def __post_init__(self) -> None:
        if self.num_levels < 2 or self.steps_per_level < 0:
            raise ValueError(
                f"expected at least 2 levels and no negative number of steps, got {self.num_levels} and "
                f"{self.steps_per_level}"
            )
        if not self.predictor and self.steps_per_level == 0:
            raise ValueError("no predictor and no steps at a level: nothing would move")
        if self.step_size <= 0.0 or (self.signal_to_noise is not None and self.signal_to_noise <= 0.0):
            raise ValueError(
                f"step_size and signal_to_noise must be positive, got {self.step_size} and {self.signal_to_noise}"
            )

    def steps(
        self, crystals: NoisyCrystals, predict: Predict, processes: Processes, noise: CrystalNoise
    ) -> Iterator[NoisyCrystals]:
        if not processes.coordinates.has_score:
            raise ValueError(
                "Langevin dynamics needs the score of a Gaussian kernel; this model was trained on straight paths, "
                f"whose samplers are {' and '.join(WITHOUT_SCORE)}"
            )
        stream = 0
        for index in range(self.num_levels):
            t = _times(crystals, 1.0 - index / (self.num_levels - 1))
            t_next = (t - 1.0 / (self.num_levels - 1)).clamp_min(0.0)
            if self.predictor and index > 0:
                crystals = self._predict_step(crystals, predict, processes, noise, t, index)
            for inner in range(self.steps_per_level):
                output = predict(crystals, t)
                moved = self._langevin_step(crystals, output, processes, noise, t, stream)
                last = inner == self.steps_per_level - 1
                uniform = noise.uniform_per_row(2, stream=2 * stream + 1)
                # the lattice moves once a level; types may at every step, as published
                where = t_next if last else t
                crystals = replace(_next_types_and_lattice(crystals, output, t, where, processes, uniform), free=moved)
                stream += 1
                yield crystals
            if self.steps_per_level == 0:
                yield crystals

    def _langevin_step(
        self,
        crystals: NoisyCrystals,
        output: ScoreOutput,
        processes: Processes,
        noise: CrystalNoise,
        t: Tensor,
        stream: int,
    ) -> Tensor:
        level = processes.coordinates.level(t, crystals.lattice)
        if self.signal_to_noise is not None:
            step = 2.0 * (self.signal_to_noise * level).square()
        else:
            length = volume(crystals.lattice).pow(1.0 / 3.0)
            last = processes.coordinates.level(torch.zeros_like(t), crystals.lattice)
            step = self.step_size * (level / last).square() / length.square()
        step, level = _per_orbit(step, crystals).unsqueeze(-1), _per_orbit(level, crystals).unsqueeze(-1)
        kick = self._kick(crystals, noise, 2 * stream)
        # the inverse metric times the score
        score = -_without_drift(output.free, crystals) / level
        return wrap_frac_coords(crystals.free + step * score + (2.0 * step).sqrt() * kick)

    @staticmethod
    def _kick(crystals: NoisyCrystals, noise: CrystalNoise, stream: int) -> Tensor:
        """(num_orbits, 3) normal numbers, isotropic in angstrom."""
        orbits = crystals.orbits
        return in_metric(noise.normal_per_row(3, stream=stream), orbits.metric(crystals.lattice), orbits)

    def _predict_step(
        self,
        crystals: NoisyCrystals,
        predict: Predict,
        processes: Processes,
        noise: CrystalNoise,
        t: Tensor,
        index: int,
    ) -> NoisyCrystals:
        """Reverse diffusion from the level before `t` to the level of `t`."""
        before = (t + 1.0 / (self.num_levels - 1)).clamp_max(1.0)
        high = _per_orbit(processes.coordinates.level(before, crystals.lattice), crystals).unsqueeze(-1)
        low = _per_orbit(processes.coordinates.level(t, crystals.lattice), crystals).unsqueeze(-1)
        output = predict(crystals, before)
        variance = high.square() - low.square()
        kick = self._kick(crystals, noise, -1 - index)
        drift = -variance * _without_drift(output.free, crystals) / high
        moved = crystals.free + drift + (variance * low.square() / high.square()).sqrt() * kick
        uniform = noise.uniform_per_row(2, stream=-1 - self.num_levels - index)
        if self.steps_per_level == 0:
            crystals = _next_types_and_lattice(crystals, output, before, t, processes, uniform)
        return replace(crystals, free=wrap_frac_coords(moved))


def make_sampler(name: str, *, num_steps: int | None = None, sharpening: float = 0.0) -> Sampler:
    """The sampler of that name.

    Args:
        name: `flow` (Euler steps of the probability-flow ODE), `heun` (the same, second order), `langevin` (annealed
            Langevin dynamics, 100 steps a level, as published), `predictor-corrector` (one of each a level).
        num_steps: steps of the ODE (50 if None), or noise levels of the other two (50 and 200 if None).
        sharpening: see `FlowSampler`; for `flow` alone.
    """
    steps = num_steps if num_steps is not None else 200 if name == "predictor-corrector" else 50
    if name == "flow":
        return FlowSampler(num_steps=steps, sharpening=sharpening)
    if name == "heun":
        return FlowSampler(num_steps=steps, method="heun")
    if name == "langevin":
        return LangevinSampler(num_levels=steps)
    if name == "predictor-corrector":
        return LangevinSampler(num_levels=steps, steps_per_level=1, signal_to_noise=0.1, predictor=True)
    raise ValueError(f"unknown sampler {name!r}; expected one of {', '.join(SAMPLERS)}")
