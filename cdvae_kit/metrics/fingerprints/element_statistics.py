"""Statistics over the elements of a composition: the 132 numbers of Magpie's set, as matminer works them out.

Ward et al., npj Comput. Mater. 2, 16028 (2016), doi 10.1038/npjcompumats.2016.28: minimum, maximum, range, mean, mean
deviation and mode of 22 properties of the elements, weighted by their counts. Where an element has no value the mean
over the elements that have one stands for it, as in the published protocol.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

from cdvae_kit.metrics.crystals import Composition

STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")


def element_statistics(composition: Composition) -> np.ndarray:
    """(132,) the six statistics of the first property, then those of the next.

    >>> element_statistics(((8, 2), (22, 1)))[:6].round(3).tolist()  # of the atomic number
    [8.0, 22.0, 14.0, 12.667, 6.222, 8.0]
    """
    numbers, counts = (np.array(column) for column in zip(*composition, strict=True))
    values = element_properties()[numbers]
    shares = (counts / counts.sum())[:, None]
    least, most = values.min(axis=0), values.max(axis=0)
    mean = (shares * values).sum(axis=0)
    deviation = (shares * np.abs(values - mean)).sum(axis=0)
    # of elements that are equally frequent the one with the least value
    mode = values[np.isclose(counts, counts.max())].min(axis=0)
    return np.stack((least, most, most - least, mean, deviation, mode), axis=-1).ravel()


def property_names() -> tuple[str, ...]:
    """The 22 properties, in order."""
    return tuple(_content())


@cache
def element_properties() -> np.ndarray:
    """(119, 22) properties by atomic number; the row 0 is no element."""
    columns = [[np.nan, *(np.nan if value is None else value for value in column)] for column in _content().values()]
    table = np.array(columns).T
    known = np.nanmean(table, axis=0)
    table[1:] = np.where(np.isnan(table[1:]), known, table[1:])
    table.setflags(write=False)
    return table


@cache
def _content() -> dict[str, list[float | None]]:
    text = files("cdvae_kit.metrics.fingerprints").joinpath("magpie_elements.json").read_text(encoding="utf-8")
    return {name: values for name, values in json.loads(text).items() if name != "source"}
