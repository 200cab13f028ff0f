"""How crystals look in a notebook: a structure that the mouse turns, and a line that says what they are.

The structure is pymatviz's MatterViz widget where that is installed (extra `report`) and its script can be had, else a
figure of the package's own.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

from cdvae_kit.crystal.batch import CrystalBatch
from cdvae_kit.visualization.crystals.structures import plot_structure

logger = logging.getLogger(__name__)

MimeBundle = tuple[dict[str, Any], dict[str, Any]]
"""What IPython shows: contents by their type, and what there is to say of each."""


def mime_bundle(crystals: CrystalBatch) -> MimeBundle:
    """The crystals in what a front end can show: as text, and the first of them as an interactive structure."""
    if not len(crystals):
        return {"text/plain": repr(crystals)}, {}
    first = crystals[0]
    found, about = _widget(first) or _figure(first)
    others = len(crystals) - 1
    text = repr(crystals) + (f"\nshown: the first; crystals[1] to crystals[{others}] are the others" if others else "")
    return found | {"text/plain": text}, about


def _widget(crystal: CrystalBatch) -> MimeBundle | None:
    """MatterViz's widget; None where there is none."""
    if not _has_widget():
        return None
    try:
        from pymatviz import StructureWidget

        shown = StructureWidget(structure=crystal.structures()[0])._repr_mimebundle_()
    except (ImportError, OSError) as error:
        # its script comes from the network, the first time
        logger.info("the MatterViz widget cannot be shown (%s); a figure is", error)
        return None
    return shown if isinstance(shown, tuple) else (dict(shown or {}), {})


def _has_widget() -> bool:
    return importlib.util.find_spec("pymatviz") is not None


def _figure(crystal: CrystalBatch) -> MimeBundle:
    figure = plot_structure(crystal, interactive=True, title=crystal.formulas()[0])
    # what it shows by itself depends on a setting of plotly's, which is for scripts as well
    return {"application/vnd.plotly.v1+json": figure.to_plotly_json(), "text/html": _page(figure)}, {}


def _page(figure: Any) -> str:
    """The figure for front ends that know no plotly: with its script, which is fetched once a notebook."""
    return str(figure.to_html(full_html=False, include_plotlyjs="cdn", default_height="420px"))
