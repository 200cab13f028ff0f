"""Pictures of crystals, of the way from noise to a crystal, and of a training run.

Names are loaded on first use: nothing here costs matplotlib, plotly or torch before something is drawn.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.visualization.denoising import plot_denoising
    from cdvae_kit.visualization.losses import plot_loss
    from cdvae_kit.visualization.structures import plot_grid, plot_structure

_HOMES = {
    "plot_denoising": "denoising",
    "plot_grid": "structures",
    "plot_loss": "losses",
    "plot_structure": "structures",
}

__all__ = ["plot_denoising", "plot_grid", "plot_loss", "plot_structure"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"cdvae_kit.visualization.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cdvae_kit.visualization' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
