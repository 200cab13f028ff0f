"""Data sets: the registry of public ones, loading, caching, splits, and the sets that the package makes itself.

Names are loaded on first use: asking the registry costs neither torch nor pymatgen.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdvae_kit.datasets.bundled import (
        BUNDLED,
        BundledInfo,
        bundled_info,
        load_bundled_series,
        load_mnist_sample,
    )
    from cdvae_kit.datasets.cache import load_crystals
    from cdvae_kit.datasets.composed_images import ComposedImages
    from cdvae_kit.datasets.digits import load_digits
    from cdvae_kit.datasets.ionic_prototypes import load_ionic_prototypes
    from cdvae_kit.datasets.loading import load_dataset, split_crystals
    from cdvae_kit.datasets.registry import (
        DATASETS,
        DatasetInfo,
        dataset_info,
        default_data_dir,
        describe_dataset,
        download_dataset,
    )
    from cdvae_kit.datasets.signals import PeriodicSignals, SignalSettings, periodic_signals
    from cdvae_kit.datasets.two_hop import TwoHopTask

_HOMES = {
    "BUNDLED": "bundled",
    "BundledInfo": "bundled",
    "ComposedImages": "composed_images",
    "DATASETS": "registry",
    "DatasetInfo": "registry",
    "PeriodicSignals": "signals",
    "SignalSettings": "signals",
    "TwoHopTask": "two_hop",
    "bundled_info": "bundled",
    "dataset_info": "registry",
    "default_data_dir": "registry",
    "describe_dataset": "registry",
    "download_dataset": "registry",
    "load_bundled_series": "bundled",
    "load_crystals": "cache",
    "load_dataset": "loading",
    "load_digits": "digits",
    "load_ionic_prototypes": "ionic_prototypes",
    "load_mnist_sample": "bundled",
    "periodic_signals": "signals",
    "split_crystals": "loading",
}

__all__ = [
    "BUNDLED",
    "DATASETS",
    "BundledInfo",
    "ComposedImages",
    "DatasetInfo",
    "PeriodicSignals",
    "SignalSettings",
    "TwoHopTask",
    "bundled_info",
    "dataset_info",
    "default_data_dir",
    "describe_dataset",
    "download_dataset",
    "load_bundled_series",
    "load_crystals",
    "load_dataset",
    "load_digits",
    "load_ionic_prototypes",
    "load_mnist_sample",
    "periodic_signals",
    "split_crystals",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"cdvae_kit.datasets.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'cdvae_kit.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
