"""Which experiments there are. Asking for their names imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdvae_kit.representation.protocol import Experiment

# name on the command line: module of this room with EXPERIMENT, one a line
_HOMES: dict[str, str] = {
    "invariance-constrained": "invariance_constrained.invariance_constrained",
    "invariance-constrained-crystals": "invariance_constrained.invariance_constrained_crystals",
    "crystal-sensitivity": "invariance_transfer.crystal_sensitivity",
    "curriculum": "curriculum.curriculum",
    "invariance-transfer": "invariance_transfer.invariance_transfer",
    "obow": "obow.obow",
    "obow-crystals": "obow.obow_crystals",
    "relative": "relative.relative",
    "random-fields": "random_fields",
    "composition-coverage": "functional_coverage.composition_coverage",
    "functional-coverage": "functional_coverage.functional_coverage",
    "frame-projections": "frame_projections.frame_projections",
    "diffraction-frames": "frame_projections.diffraction_frames",
    "few-labels": "few_labels",
}


def experiment_names() -> list[str]:
    """Names for `load_experiment`, sorted."""
    return sorted(_HOMES)


def load_experiment(name: str) -> Experiment:
    """The experiment of that name; `ValueError` names what there is."""
    if name not in _HOMES:
        raise ValueError(f"there is no experiment {name!r}; there are {', '.join(experiment_names()) or 'none'}")
    experiment: Experiment = import_module(f"cdvae_kit.representation.experiments.{_HOMES[name]}").EXPERIMENT
    return experiment
