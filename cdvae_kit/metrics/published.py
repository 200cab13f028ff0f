"""Numbers that papers print for models of crystals, to stand beside ours: facts with their sources, no computation.

Every entry is what its paper or model card prints, on the test split of the data set named. Rates are shares of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Protocol: TypeAlias = Literal["generation", "reconstruction", "structure prediction"]

SOURCES = {
    "ADiT": "arXiv:2503.03965",
    "CDVAE": "arXiv:2110.06197",
    "CrysLLMGen": "arXiv:2510.23040",
    "CrystalLLM 7B": "arXiv:2402.04379",
    "DiffCSP": "arXiv:2309.04475",
    "DiffCSP++": "arXiv:2402.03992",
    "FlowMM": "arXiv:2406.04713",
    "MatterGen": "arXiv:2312.03687",
    "OMatG": "arXiv:2502.02582",
}
"""Where a model is described; a model that is not here is printed with its name alone."""

_CDVAE_PAPER = "as CDVAE's paper prints it"
_ADAPTED = "adapted to structure prediction"
_CHGNET_SUN = "stable, unique and novel; relaxed by CHGNet, under the hull"
_DFT_SUN = "stable, unique and novel; DFT, within 0.1 eV/atom of the Alex-MP hull"


@dataclass(frozen=True)
class PublishedResult:
    """One number.

    Attributes:
        dataset: "perov_5", "carbon_24", "mp_20" or "mpts_52".
        metric: as in `metrics.json`.
        value: a share of 1 for a rate.
        model: whose it is.
        protocol: what was asked of the model.
        note: what it depends on beyond that; "" where nothing is known.
    """

    dataset: str
    metric: str
    value: float
    model: str
    protocol: Protocol = "generation"
    note: str = ""

    @property
    def source(self) -> str:
        """Where the model is described, "" where that is not on record here."""
        return SOURCES.get(self.model, "")


PUBLISHED: tuple[PublishedResult, ...] = (
    # reconstruction
    PublishedResult("perov_5", "match_rate", 0.9752, "CDVAE", "reconstruction"),
    PublishedResult("perov_5", "rmse", 0.0156, "CDVAE", "reconstruction"),
    PublishedResult("carbon_24", "match_rate", 0.5522, "CDVAE", "reconstruction"),
    PublishedResult("carbon_24", "rmse", 0.1251, "CDVAE", "reconstruction"),
    PublishedResult("mp_20", "match_rate", 0.4543, "CDVAE", "reconstruction"),
    PublishedResult("mp_20", "rmse", 0.0356, "CDVAE", "reconstruction"),
    PublishedResult("perov_5", "match_rate", 0.9934, "FTCP", "reconstruction", _CDVAE_PAPER),
    PublishedResult("perov_5", "rmse", 0.0259, "FTCP", "reconstruction", _CDVAE_PAPER),
    PublishedResult("carbon_24", "match_rate", 0.6228, "FTCP", "reconstruction", _CDVAE_PAPER),
    PublishedResult("carbon_24", "rmse", 0.2563, "FTCP", "reconstruction", _CDVAE_PAPER),
    PublishedResult("mp_20", "match_rate", 0.6989, "FTCP", "reconstruction", _CDVAE_PAPER),
    PublishedResult("mp_20", "rmse", 0.1593, "FTCP", "reconstruction", _CDVAE_PAPER),
    # generation, CDVAE
    PublishedResult("perov_5", "struct_valid", 1.0, "CDVAE"),
    PublishedResult("carbon_24", "struct_valid", 1.0, "CDVAE"),
    PublishedResult("mp_20", "struct_valid", 1.0, "CDVAE"),
    PublishedResult("perov_5", "comp_valid", 0.9859, "CDVAE"),
    PublishedResult("mp_20", "comp_valid", 0.8670, "CDVAE"),
    PublishedResult("perov_5", "cov_recall", 0.9945, "CDVAE"),
    PublishedResult("perov_5", "cov_precision", 0.9846, "CDVAE"),
    PublishedResult("carbon_24", "cov_recall", 0.9980, "CDVAE"),
    PublishedResult("carbon_24", "cov_precision", 0.8308, "CDVAE"),
    PublishedResult("mp_20", "cov_recall", 0.9915, "CDVAE"),
    PublishedResult("mp_20", "cov_precision", 0.9949, "CDVAE"),
    PublishedResult("perov_5", "wdist_density", 0.1258, "CDVAE"),
    PublishedResult("carbon_24", "wdist_density", 0.1407, "CDVAE"),
    PublishedResult("mp_20", "wdist_density", 0.6875, "CDVAE"),
    PublishedResult("perov_5", "wdist_heat_ref", 0.0264, "CDVAE"),
    PublishedResult("carbon_24", "wdist_energy_per_atom", 0.2850, "CDVAE"),
    PublishedResult("mp_20", "wdist_formation_energy_per_atom", 0.2778, "CDVAE"),
    PublishedResult("perov_5", "wdist_num_elems", 0.0628, "CDVAE"),
    PublishedResult("mp_20", "wdist_num_elems", 1.432, "CDVAE"),
    # generation, the best known
    PublishedResult("mp_20", "comp_valid", 0.9355, "CrystalLLM 7B"),
    PublishedResult("mp_20", "comp_valid", 0.9083, "ADiT"),
    PublishedResult("mp_20", "wdist_density", 0.075, "SGFM"),
    PublishedResult("mp_20", "wdist_num_elems", 0.03, "SbCD"),
    PublishedResult("mp_20", "wdist_formation_energy_per_atom", 0.1247, "DiffCSP"),
    PublishedResult("perov_5", "cov_recall", 0.9974, "DiffCSP"),
    PublishedResult("perov_5", "cov_precision", 0.9882, "CrysLLMGen"),
    PublishedResult("perov_5", "wdist_density", 0.066, "DiffCSP++"),
    PublishedResult("perov_5", "wdist_num_elems", 0.004, "DiffCSP++"),
    PublishedResult("carbon_24", "cov_recall", 0.9990, "DiffCSP"),
    PublishedResult("carbon_24", "cov_precision", 0.9727, "DiffCSP"),
    PublishedResult("carbon_24", "wdist_density", 0.0805, "DiffCSP"),
    PublishedResult("carbon_24", "wdist_energy_per_atom", 0.0820, "DiffCSP"),
    PublishedResult("mp_20", "sun", 0.0921, "CrysLLMGen", note=_CHGNET_SUN),
    PublishedResult("mp_20", "sun", 0.0892, "DiffCSP", note=_CHGNET_SUN),
    PublishedResult("mp_20", "sun", 0.0426, "CDVAE", note=_CHGNET_SUN),
    PublishedResult("mp_20", "sun", 0.2227, "MatterGen", note=f"{_DFT_SUN}; trained on MP-20"),
    PublishedResult("mp_20", "sun", 0.1399, "CDVAE", note=_DFT_SUN),
    # structure prediction from the composition, one sample
    PublishedResult("mp_20", "match_rate", 0.3390, "CDVAE", "structure prediction", _ADAPTED),
    PublishedResult("mp_20", "rmse", 0.1045, "CDVAE", "structure prediction", _ADAPTED),
    PublishedResult("mp_20", "match_rate", 0.5149, "DiffCSP", "structure prediction"),
    PublishedResult("mp_20", "rmse", 0.0631, "DiffCSP", "structure prediction"),
    PublishedResult("mp_20", "match_rate", 0.6139, "FlowMM", "structure prediction"),
    PublishedResult("mp_20", "rmse", 0.0566, "FlowMM", "structure prediction"),
    PublishedResult("mp_20", "match_rate", 0.6375, "OMatG", "structure prediction"),
    PublishedResult("mp_20", "rmse", 0.0720, "OMatG", "structure prediction"),
    PublishedResult("mp_20", "match_rate", 0.6609, "Crystalite", "structure prediction"),
    PublishedResult("mp_20", "rmse", 0.0337, "Crystalite", "structure prediction"),
    PublishedResult("mp_20", "match_rate_unfiltered", 0.7379, "MaskGXT", "structure prediction"),
    PublishedResult("mpts_52", "match_rate", 0.0534, "CDVAE", "structure prediction", _ADAPTED),
    PublishedResult("mpts_52", "rmse", 0.2106, "CDVAE", "structure prediction", _ADAPTED),
    PublishedResult("mpts_52", "match_rate", 0.1219, "DiffCSP", "structure prediction"),
    PublishedResult("mpts_52", "rmse", 0.1786, "DiffCSP", "structure prediction"),
    PublishedResult("mpts_52", "match_rate", 0.1754, "FlowMM", "structure prediction"),
    PublishedResult("mpts_52", "rmse", 0.1726, "FlowMM", "structure prediction"),
    PublishedResult("mpts_52", "match_rate", 0.2515, "OMatG", "structure prediction"),
    PublishedResult("mpts_52", "rmse", 0.1931, "OMatG", "structure prediction"),
    PublishedResult("mpts_52", "match_rate", 0.315, "Crystalite", "structure prediction"),
    PublishedResult("mpts_52", "rmse", 0.070, "Crystalite", "structure prediction"),
    PublishedResult("mpts_52", "match_rate_unfiltered", 0.3675, "MaskGXT", "structure prediction"),
)

PUBLISHED_SIZES = {"perov_5": (10_000, 3_785), "carbon_24": (10_000, 2_030), "mp_20": (10_000, 9_046)}
"""Generated crystals and references that published COV rests on: CDVAE's 10,000, and the whole test split."""

PUBLISHED_DATASETS: tuple[str, ...] = tuple(dict.fromkeys(entry.dataset for entry in PUBLISHED))


def published_results(dataset: str, *, metrics: Sequence[str] | None = None) -> list[PublishedResult]:
    """What is published on a data set, in the order of the table.

    Args:
        dataset: one of `PUBLISHED_DATASETS`.
        metrics: names of metrics; all if None.

    >>> [(entry.model, entry.value) for entry in published_results("perov_5", metrics=["cov_precision"])]
    [('CDVAE', 0.9846), ('CrysLLMGen', 0.9882)]
    """
    if dataset not in PUBLISHED_DATASETS:
        raise ValueError(f"results are published here for {', '.join(PUBLISHED_DATASETS)}, got {dataset!r}")
    return [entry for entry in PUBLISHED if entry.dataset == dataset and (metrics is None or entry.metric in metrics)]
