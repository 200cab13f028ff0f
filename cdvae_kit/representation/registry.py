"""Which experiments there are. Asking for their names imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdvae_kit.representation.experiments import Experiment

# name on the command line: module of this sub-package with EXPERIMENT, one a line
_HOMES: dict[str, str] = {
    "invariance-constrained": "constrained_discovery",
    "invariance-constrained-crystals": "constrained_on_crystals",
    "crystal-sensitivity": "crystal_sensitivity",
    "curriculum": "curriculum_experiment",
    "invariance-transfer": "invariance_transfer",
    "obow": "obow_on_images",
    "obow-crystals": "obow_on_crystals",
    "relative": "relative_stitching",
    "random-fields": "random_fields",
    "composition-coverage": "coverage_on_crystals",
    "functional-coverage": "coverage_on_tables",
    "frame-projections": "frames_on_signals",
    "diffraction-frames": "frames_on_diffraction",
}


def experiment_names() -> list[str]:
    """Names for `load_experiment`, sorted."""
    return sorted(_HOMES)


def load_experiment(name: str) -> Experiment:
    """The experiment of that name; `ValueError` names what there is."""
    if name not in _HOMES:
        raise ValueError(f"there is no experiment {name!r}; there are {', '.join(experiment_names()) or 'none'}")
    experiment: Experiment = import_module(f"cdvae_kit.representation.{_HOMES[name]}").EXPERIMENT
    return experiment
