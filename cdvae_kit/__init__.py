"""Generate crystals with the Crystal Diffusion Variational Autoencoder, and go beyond it.

Names are loaded on first use, so that ``import cdvae_kit`` costs next to nothing. The sub-packages leave this to
lazy_loader, which gives a name as its module calls it; here `train` is `train_model` and `write` is `write_crystals`.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch as CrystalBatch
    from cdvae_kit.generation.front_door import optimize as optimize
    from cdvae_kit.generation.front_door import sample as sample
    from cdvae_kit.generation.model_training import train_model as train
    from cdvae_kit.io.crystals.reading import read as read
    from cdvae_kit.io.crystals.writing import write_crystals as write
    from cdvae_kit.metrics.evaluation import evaluate as evaluate
    from cdvae_kit.models import CDVAE as CDVAE

__version__ = "0.1.0"

_HOMES = {
    "CDVAE": ("cdvae_kit.models", "CDVAE"),
    "CrystalBatch": ("cdvae_kit.crystal", "CrystalBatch"),
    "evaluate": ("cdvae_kit.metrics.evaluation", "evaluate"),
    "optimize": ("cdvae_kit.generation.front_door", "optimize"),
    "read": ("cdvae_kit.io.crystals.reading", "read"),
    "sample": ("cdvae_kit.generation.front_door", "sample"),
    "train": ("cdvae_kit.generation.model_training", "train_model"),
    "write": ("cdvae_kit.io.crystals.writing", "write_crystals"),
}

__all__ = ["CDVAE", "CrystalBatch", "__version__", "evaluate", "optimize", "read", "sample", "train", "write"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'cdvae_kit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _show_crystals_in_notebooks() -> None:
    """Tells IPython, where it runs, how crystals look; nothing is loaded before one is to be shown."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return

    def look(crystals: Any) -> Any:
        return import_module("cdvae_kit.visualization.crystals.notebook").mime_bundle(crystals)

    formatter = shell.display_formatter.mimebundle_formatter
    formatter.for_type_by_name("cdvae_kit.crystal.batch", "CrystalBatch", look)


_show_crystals_in_notebooks()
