"""`cdvae_kit.sample` and `cdvae_kit.optimize`: models by name, and what is asked for in words.

For whoever has no model at hand yet. The same with every setting: `CDVAE.sample`, `optimization.run.optimize`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.diffusion.sampler_names import SamplerName
from cdvae_kit.diffusion.samplers import make_sampler
from cdvae_kit.generation.conditions import check_possible, conditions_from
from cdvae_kit.generation.optimization.constraints import Constraints
from cdvae_kit.generation.optimization.objectives import Goal, UnknownPropertyError
from cdvae_kit.generation.optimization.oracles import Judge
from cdvae_kit.generation.optimization.predictors import CodeModel, PredictorJudge
from cdvae_kit.generation.optimization.run import OptimizationResult
from cdvae_kit.generation.optimization.run import optimize as run_optimization
from cdvae_kit.metrics.composition_rules import CompositionRule
from cdvae_kit.models.cdvae import CDVAE
from cdvae_kit.models.latent_predictor import LatentPredictor
from cdvae_kit.models.property_predictor import PropertyPredictor
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from cdvae_kit.generation.optimization.objectives import LatentModel

logger = logging.getLogger(__name__)

ModelName = CDVAE | str | os.PathLike[str]
"""A model, or what `CDVAE.from_pretrained` loads one by."""


def sample(
    num_crystals: int = 32,
    *,
    model: ModelName = "mp_20",
    formula: str | None = None,
    formula_units: int | Literal["all"] = "all",
    elements: Sequence[str] | None = None,
    contains: Sequence[str] | None = None,
    without: Sequence[str] | None = None,
    num_atoms: int | None = None,
    space_group: int | None = None,
    crystal_system: str | None = None,
    sites: Mapping[str, Sequence[str]] | None = None,
    properties: Mapping[str, float] | None = None,
    neutral: CompositionRule | None = None,
    guidance: float = 1.0,
    temperature: float = 1.0,
    num_steps: int | None = None,
    sampler: SamplerName | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> CrystalBatch:
    """New crystals, of what is asked for; the same that the command `sample` makes.

    Args:
        num_crystals: how many.
        model: a name that the package carries, a folder, `hf:owner/name`, or a model.
        formula: and the following up to `neutral`: what is asked for, see `conditions_from`.
        formula_units: in a primitive cell.
        elements: symbols of the chemical system.
        contains: symbols of elements that occur.
        without: symbols of elements that do not.
        num_atoms: in the primitive cell.
        space_group: 1 to 230.
        crystal_system: triclinic to cubic.
        sites: symbol to the letters of its Wyckoff positions in the space group, as `{"Na": "a", "Cl": "b"}`.
        properties: name to value.
        neutral: the rule that compositions pass.
        guidance: weight of what is asked for.
        temperature: below 1: more typical and less diverse crystals.
        num_steps: of denoising; the model's own if None.
        sampler: the way to denoise; the model's own if None.
        seed: the same seed gives the same crystals.
        device: of a model that is loaded.
        progress: called with (crystals done, crystals in all).
    """
    conditions = conditions_from(
        formula=formula,
        formula_units=formula_units,
        elements=elements,
        contains=contains,
        without=without,
        num_atoms=num_atoms,
        space_group=space_group,
        crystal_system=crystal_system,
        sites=sites,
        properties=properties,
        neutral=neutral,
    )
    engine = load(model, device)
    if conditions is not None:
        check_possible(engine, conditions)
    named = sampler is not None
    return engine.sample(
        num_crystals,
        seed=seed,
        num_atoms=num_atoms,
        conditions=conditions,
        guidance=guidance,
        temperature=temperature,
        num_steps=None if named else num_steps,
        sampler=None
        if sampler is None
        else make_sampler(sampler, num_steps=num_steps, sharpening=engine.config.sharpening),
        progress=progress,
    )


def optimize(
    goals: str | Goal | Sequence[str | Goal],
    *,
    model: ModelName = "perov_5",
    predictor: LatentModel | str | os.PathLike[str] | None = None,
    judge: Judge | str | os.PathLike[str] | None = None,
    starts: CrystalBatch | int = 100,
    constraints: Constraints | None = None,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> OptimizationResult:
    """Crystals with the property that is asked for, ranked by an independent model; see `optimization.run.optimize`.

    Args:
        goals: a property to make small, such as "heat_ref", or a `Goal`, or several.
        model: a name that the package carries, a folder, `hf:owner/name`, or a model.
        predictor: of the properties from codes; by default the one that the package carries for the model's name.
        judge: of the candidates, independent of the predictor; likewise, and none where the carried one does not know
            every goal: then the predictor ranks, and the log and the summary say so.
        starts: crystals to start from, or how many codes to draw from the prior.
        constraints: what candidates have to be.
        output: a folder for everything; None keeps nothing.
        seed: of the run.
        device: of models that are loaded.
        progress: called with (starts done, starts in all).
    """
    wanted = [goals] if isinstance(goals, str | Goal) else list(goals)
    asked = tuple(goal if isinstance(goal, Goal) else Goal(goal) for goal in wanted)
    engine = load(model, device)
    names = tuple(goal.name for goal in asked)
    if predictor is None or judge is None:
        if isinstance(model, CDVAE):
            raise ValueError("give `predictor` and `judge`: only models that are loaded by name have them by default")
        predictor = model if predictor is None else predictor
        judge = carried_judge(model, names, device, tell=logger.warning) if judge is None else judge
    return run_optimization(
        engine,
        asked,
        predictor=load_code_model(predictor, engine, device) if isinstance(predictor, str | os.PathLike) else predictor,
        judge=load_judge(judge, names, device) if isinstance(judge, str | os.PathLike) else judge,
        starts=starts,
        constraints=constraints,
        output=output,
        seed=seed,
        progress=progress,
    )


def load(model: ModelName, device: str = "auto") -> CDVAE:
    """The model itself, loaded where it is a name."""
    return model if isinstance(model, CDVAE) else CDVAE.from_pretrained(model, device=device)


def load_code_model(name: str | os.PathLike[str], model: CDVAE, device: str = "auto") -> CodeModel:
    """A predictor from codes as what is optimised; an error where it was fitted to another autoencoder."""
    return CodeModel(LatentPredictor.from_pretrained(name, device=device), model)


def carried_judge(
    name: str | os.PathLike[str], properties: tuple[str, ...], device: str = "auto", *, tell: Callable[[str], object]
) -> PredictorJudge | None:
    """The judge that belongs to a model's name; None, with a word to `tell`, where it does not know every property."""
    try:
        return load_judge(name, properties, device)
    except UnknownPropertyError as error:
        tell(f"{error}: no one judges, and the candidates are ranked by the predictor that the search goes down")
        return None


def load_judge(name: str | os.PathLike[str], properties: tuple[str, ...], device: str = "auto") -> PredictorJudge:
    """A predictor from crystals as the judge."""
    return PredictorJudge(PropertyPredictor.from_pretrained(name, device=device), properties)
