"""Pictures of crystals, of the way from noise to a crystal, of a training run and of an evaluation.

Names are loaded on first use: nothing here costs matplotlib, plotly or torch before something is drawn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.visualization.crystals.denoising import plot_denoising
    from cdvae_kit.visualization.crystals.structures import plot_grid, plot_structure
    from cdvae_kit.visualization.distributions import plot_distribution
    from cdvae_kit.visualization.elements import plot_elements
    from cdvae_kit.visualization.latent import plot_latent_map
    from cdvae_kit.visualization.losses import plot_loss
    from cdvae_kit.visualization.report.evaluation_page import write_report
    from cdvae_kit.visualization.scores import plot_metrics
    from cdvae_kit.visualization.space_groups import plot_space_groups

_HOMES = {
    "plot_denoising": "crystals.denoising",
    "plot_distribution": "distributions",
    "plot_elements": "elements",
    "plot_grid": "crystals.structures",
    "plot_latent_map": "latent",
    "plot_loss": "losses",
    "plot_metrics": "scores",
    "plot_space_groups": "space_groups",
    "plot_structure": "crystals.structures",
    "write_report": "report.evaluation_page",
}

__all__ = [
    "plot_denoising",
    "plot_distribution",
    "plot_elements",
    "plot_grid",
    "plot_latent_map",
    "plot_loss",
    "plot_metrics",
    "plot_space_groups",
    "plot_structure",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"cdvae_kit.visualization.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cdvae_kit.visualization' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
