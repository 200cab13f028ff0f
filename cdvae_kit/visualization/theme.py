"""How the figures of an evaluation look and speak: colours, names of quantities, the layout of plotly figures.

No figure is drawn here; nothing here imports matplotlib or plotly.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Literal

GENERATED_COLOR = "#1668b8"
REFERENCE_COLOR = "#8d99a6"
PUBLISHED_COLOR = "#c2570c"
INK = "#1f2933"
GRID = "#e4e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
MORE_AND_LESS = ((0.0, "#c2570c"), (0.25, "#f0b27a"), (0.5, "#f7f7f5"), (0.75, "#85b4de"), (1.0, "#1668b8"))
"""Less than the reference, as much, more."""
SHARES = ((0.0, "#eef4fa"), (0.5, "#85b4de"), (1.0, "#0d4a86"))

_AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": "#9aa5b1",
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": "#9aa5b1",
    "automargin": True,
}


@dataclass(frozen=True)
class Wording:
    """What a metric is called in print.

    Attributes:
        label: short, for an axis or a table.
        is_rate: a share of 1, printed in per cent.
        better: which way is better; None where neither is.
    """

    label: str
    is_rate: bool = False
    better: Literal["higher", "lower"] | None = None


METRICS = {
    "n_gen": Wording("generated crystals"),
    "n_ref": Wording("reference crystals"),
    "n_ref_with_fp": Wording("references with a fingerprint"),
    "struct_valid": Wording("structure valid", True, "higher"),
    "comp_valid": Wording("composition valid", True, "higher"),
    "valid": Wording("valid", True, "higher"),
    "struct_valid_strict": Wording("structure valid, own images too", True, "higher"),
    "cov_recall": Wording("COV recall", True, "higher"),
    "cov_precision": Wording("COV precision", True, "higher"),
    "cov_recall_joint": Wording("COV recall, joint", True, "higher"),
    "cov_precision_joint": Wording("COV precision, joint", True, "higher"),
    "amsd_recall": Wording("AMSD recall", better="lower"),
    "amsd_precision": Wording("AMSD precision", better="lower"),
    "amcd_recall": Wording("AMCD recall", better="lower"),
    "amcd_precision": Wording("AMCD precision", better="lower"),
    "comp_div": Wording("composition diversity"),
    "struct_div": Wording("structure diversity"),
    "wdist_density": Wording("Wasserstein distance, density", better="lower"),
    "wdist_num_elems": Wording("Wasserstein distance, number of elements", better="lower"),
    "match_rate": Wording("match rate", True, "higher"),
    "match_rate_unfiltered": Wording("match rate, unfiltered", True, "higher"),
    "rmse": Wording("RMSE of the matches", better="lower"),
    "rmse_unfiltered": Wording("RMSE, unfiltered", better="lower"),
    "metre": Wording("METRe", True, "higher"),
    "crmse": Wording("cRMSE", better="lower"),
    "unique": Wording("unique", True, "higher"),
    "novel": Wording("novel", True, "higher"),
    "stable": Wording("stable", True, "higher"),
    "metastable": Wording("metastable", True, "higher"),
    "unique_novel": Wording("unique and novel", True, "higher"),
    "valid_unique_novel": Wording("valid, unique and novel", True, "higher"),
    "stable_unique": Wording("stable and unique", True, "higher"),
    "stable_novel": Wording("stable and novel", True, "higher"),
    "metastable_unique": Wording("metastable and unique", True, "higher"),
    "metastable_novel": Wording("metastable and novel", True, "higher"),
    "metasun": Wording("metastable, unique and novel", True, "higher"),
    "relaxed": Wording("relaxed to the end"),
    "judged": Wording("with an energy above the hull"),
    "rms_relaxation": Wording("displacement by relaxation", better="lower"),
    "sun": Wording("stable, unique and novel (S.U.N.)", True, "higher"),
    "vendi_structure": Wording("Vendi score, structure"),
    "vendi_structure_reference": Wording("Vendi score, structure, of the reference"),
    "vendi_composition": Wording("Vendi score, composition"),
    "vendi_composition_reference": Wording("Vendi score, composition, of the reference"),
    "frechet_distance": Wording("Fréchet distance, latent space", better="lower"),
    "share_p1": Wording("share of P1", True),
    "share_p1_reference": Wording("share of P1, reference", True),
    "share_triclinic": Wording("share of triclinic", True),
}

_RATES = frozenset({"share", "valid", "unique", "novel", "stable", "metastable", "sun", "metasun"})
"""First words of names of rates."""

SECTIONS = {
    "validity": "Validity",
    "coverage": "Coverage",
    "distribution": "Distributions and diversity",
    "symmetry": "Symmetry",
    "uniqueness": "Uniqueness and novelty",
    "reconstruction": "Reconstruction and structure prediction",
    "stability": "Stability",
}

QUANTITIES = {
    "density": "density",
    "num_elems": "number of elements",
    "num_atoms": "atoms in the cell",
    "volume_per_atom": "volume per atom",
    "element": "element",
    "elements": "elements",
    "space_group": "space group",
    "crystal_system": "crystal system",
    "coordination": "coordination number",
    "energy_above_hull": "energy above the hull",
}

COUNTED = {"element": "atoms", "coordination": "sites"}
"""What a value belongs to, crystals where it is not here."""


def metric_wording(name: str) -> Wording:
    """Of a metric that has no entry: its own name, and a rate if it begins like one (`unique_disordered`).

    >>> metric_wording("wdist_band_gap").label, metric_wording("jsd_elements").better
    ('Wasserstein distance, band gap', 'lower')
    """
    if name in METRICS:
        return METRICS[name]
    for prefix, words in (("wdist_", "Wasserstein distance"), ("jsd_", "Jensen–Shannon divergence")):
        if name.startswith(prefix):
            return Wording(f"{words}, {quantity_label(name[len(prefix) :])}", better="lower")
    first = name.split("_")[0]
    return Wording(name.replace("_", " "), first in _RATES, "higher" if first in _RATES - {"share"} else None)


def quantity_label(name: str, unit: str = "") -> str:
    """For an axis: `density (g/cm³)`."""
    return QUANTITIES.get(name, name.replace("_", " ")) + (f" ({unit})" if unit else "")


def plain(text: str) -> str:
    """Text that comes from a file, for plotly, which takes some HTML for markup."""
    return escape(text, quote=False)


def plotly_layout(**more: Any) -> dict[str, Any]:
    """What all plotly figures have in common, `more` on top; nothing is left to a template."""
    axes = {}
    for name in ("xaxis", "yaxis"):
        own = more.pop(name, {})
        title = {"font": {"size": 13}, "standoff": 10} | own.get("title", {})
        axes[name] = _AXIS | own | {"title": title}
    return {
        "template": "none",
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 60, "r": 16, "t": 36, "b": 52},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": FONT}},
        **axes,
        **more,
    }
