"""The periodic table, coloured by how often each element stands in the generated crystals and in the reference."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from ase.data import chemical_symbols

from cdvae_kit.visualization import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

    from cdvae_kit.metrics.evaluation_result import Distribution

FLOOR = 0.1
"""Per cent that are added to both shares before they are divided: an element of one atom says little."""
FARTHEST = 2.0
"""Powers of two at which the colours end."""

_EMPTY = "#f0f2f4"
_ABSENT_INK = "#8d99a6"
_ROWS, _COLUMNS = 9.5, 18
_NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86)


def _position(atomic_number: int) -> tuple[float, int]:
    row = sum(atomic_number > last for last in _NOBLE_GASES)
    place = atomic_number - _NOBLE_GASES[row - 1]
    if row == 1:
        return 1, 1 if place == 1 else 18
    if row <= 3:
        return row, place if place <= 2 else place + 10
    if row <= 5 or place <= 2:
        return row, place
    return (row + 2.5, place) if place <= 17 else (row, place - 14)


POSITIONS = {chemical_symbols[number]: _position(number) for number in range(1, 119)}
"""Row (the f block below the rest, from 8.5) and column (from 1) of each element."""


class Shares(NamedTuple):
    """Per cent of the atoms that are of each element, all 118 in the order of `POSITIONS`.

    There may be no `reference`.
    """

    generated: np.ndarray
    reference: np.ndarray | None

    @property
    def present(self) -> np.ndarray:
        """(118,) whether either set holds the element."""
        there = self.generated > 0
        return there if self.reference is None else there | (self.reference > 0)

    @property
    def colored_by(self) -> np.ndarray:
        """(118,) log2 of the ratio of the shares, or the generated share without a reference; NaN where not present."""
        values = self.generated
        if self.reference is not None:
            values = np.log2((self.generated + FLOOR) / (self.reference + FLOOR)).clip(-FARTHEST, FARTHEST)
        return np.where(self.present, values, np.nan)


def element_shares(distribution: Distribution) -> Shares:
    """Of a distribution of one element symbol an atom."""

    def share(labels: np.ndarray) -> np.ndarray:
        counts = Counter(str(label) for label in labels if label is not None)
        if unknown := sorted(set(counts) - set(POSITIONS)):
            raise ValueError(f"one element symbol an atom is expected, got {', '.join(unknown[:5])}")
        return 100 * np.array([counts[symbol] for symbol in POSITIONS]) / max(1, sum(counts.values()))

    return Shares(
        share(distribution.generated), None if distribution.reference is None else share(distribution.reference)
    )


@overload
def plot_elements(distribution: Distribution, *, interactive: Literal[False] = False) -> Figure: ...
@overload
def plot_elements(distribution: Distribution, *, interactive: Literal[True]) -> go.Figure: ...
def plot_elements(distribution: Distribution, *, interactive: bool = False) -> Figure | go.Figure:
    """The periodic table: blue where generated crystals hold more of an element than the reference, orange where less.

    In each box the per cent of atoms, generated above reference. Without a reference the colour is the share itself.

    Args:
        distribution: `Evaluation.distributions["element"]`, one symbol an atom.
        interactive: a figure of plotly's.
    """
    shares = element_shares(distribution)
    return _interactive(shares) if interactive else _static(shares)


def _share_in_words(value: float) -> str:
    if value == 0:
        return "–"
    return "<0.1" if value < 0.1 else f"{value:.1f}"


def _scale(shares: Shares) -> tuple[float, float, tuple[tuple[float, str], ...], str, dict[float, str]]:
    """Ends, colours, title and ticks of the colours."""
    if shares.reference is None:
        top = max(1.0, float(shares.generated.max()))
        return 0.0, top, theme.SHARES, "share of atoms (%)", {0.0: "0", top / 2: f"{top / 2:.0f}", top: f"{top:.0f}"}
    ticks = {-2.0: "¼ or less", -1.0: "½", 0.0: "same", 1.0: "2×", 2.0: "4× or more"}
    return -FARTHEST, FARTHEST, theme.MORE_AND_LESS, "generated / reference", ticks


class _Box(NamedTuple):
    """One element of the table.

    Attributes:
        symbol: of the element.
        row: see `POSITIONS`.
        column: likewise.
        value: of `Shares.colored_by`, which the box is coloured by.
        below: what is written below the symbol; nothing for an element that neither set holds.
        ink: the colour of what is written.
    """

    symbol: str
    row: float
    column: int
    value: float
    below: tuple[str, ...]
    ink: str


def _boxes(shares: Shares) -> list[_Box]:
    """All 118 in the order of `POSITIONS`."""
    sets = [values for values in (shares.generated, shares.reference) if values is not None]
    columns = zip(POSITIONS.items(), shares.present, shares.colored_by, zip(*sets, strict=True), strict=True)
    boxes = []
    for (symbol, (row, column)), is_present, value, percent in columns:
        below = tuple(map(_share_in_words, percent)) if is_present else ()
        boxes.append(_Box(symbol, row, column, value, below, _ink(value, shares) if is_present else _ABSENT_INK))
    return boxes


def _interactive(shares: Shares) -> go.Figure:
    import plotly.graph_objects as go

    low, high, colors, title, ticks = _scale(shares)
    rows = sorted({row for row, _ in POSITIONS.values()})
    z = np.full((len(rows), _COLUMNS), np.nan)
    background, hover = np.full_like(z, np.nan), np.full(z.shape, "", dtype=object)
    notes = []
    for i, box in enumerate(_boxes(shares)):
        at = rows.index(box.row), box.column - 1
        z[at], background[at] = box.value, 0.0
        hover[at] = f"<b>{box.symbol}</b><br>generated {shares.generated[i]:.2f} % of atoms"
        if shares.reference is not None:
            hover[at] += f"<br>reference {shares.reference[i]:.2f} %"
        text = f"<b>{box.symbol}</b>"
        if box.below:
            text += f"<br><span style='font-size:8.5px'>{'<br>'.join(box.below)}</span>"
        font = {"size": 12, "color": box.ink}
        notes.append({"x": box.column, "y": box.row, "text": text, "showarrow": False, "font": font})
    # boxes of one height although the f block stands apart
    common = {"x": list(range(1, _COLUMNS + 1)), "xgap": 3, "ygap": 3}
    blocks = [slice(0, 7), slice(7, 9)]
    traces = []
    for k, block in enumerate(blocks):
        place = common | {"y": rows[block]}
        traces.append(
            go.Heatmap(
                z=background[block], colorscale=[[0, _EMPTY], [1, _EMPTY]], showscale=False, hoverinfo="skip", **place
            )
        )
        traces.append(
            go.Heatmap(
                z=z[block],
                zmin=low,
                zmax=high,
                colorscale=[list(stop) for stop in colors],
                customdata=hover[block].tolist(),
                hovertemplate="%{customdata}<extra></extra>",
                showscale=k == 0,
                colorbar={
                    "title": {"text": title, "side": "top", "font": {"size": 12}},
                    "orientation": "h",
                    "x": 0.39,
                    "y": 0.86,
                    "len": 0.42,
                    "thickness": 10,
                    "tickvals": list(ticks),
                    "ticktext": list(ticks.values()),
                    "outlinewidth": 0,
                },
                **place,
            )
        )
    hidden = {"visible": False, "fixedrange": True}
    layout = theme.plotly_layout(
        xaxis=hidden | {"range": [0.4, _COLUMNS + 0.6]},
        yaxis=hidden | {"range": [_ROWS + 0.6, 0.4]},
        annotations=notes,
        height=560,
        margin={"l": 4, "r": 4, "t": 8, "b": 8},
    )
    return go.Figure(traces, layout)


def _ink(value: float, shares: Shares) -> str:
    """Dark on light colours, white on dark ones."""
    low, high, *_ = _scale(shares)
    place = (value - low) / (high - low)
    return "white" if place > 0.85 or (shares.reference is not None and place < 0.12) else theme.INK


def _static(shares: Shares) -> Figure:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    from cdvae_kit.visualization.crystals.canvas import new_figure

    low, high, colors, title, ticks = _scale(shares)
    mapping = ScalarMappable(Normalize(low, high), LinearSegmentedColormap.from_list("shares", colors))
    figure = new_figure(9.0, 5.0)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0.4, _COLUMNS + 0.6), ylim=(_ROWS + 0.6, 0.4), aspect="equal")
    boxes = _boxes(shares)
    faces = mapping.to_rgba(np.array([box.value for box in boxes]))
    for box, face in zip(boxes, faces, strict=True):
        color = face if box.below else _EMPTY
        axes.add_patch(Rectangle((box.column - 0.47, box.row - 0.47), 0.94, 0.94, facecolor=color))
        centred: dict[str, Any] = {"ha": "center", "va": "center", "color": box.ink}
        height = box.row - (0.2 if box.below else 0)
        axes.text(box.column, height, box.symbol, fontsize=9, weight="bold", **centred)
        if box.below:
            axes.text(box.column, box.row + 0.18, "\n".join(box.below), fontsize=5.5, linespacing=1.0, **centred)
    place = axes.inset_axes((0.2, 0.86, 0.4, 0.025))
    bar = figure.colorbar(mapping, cax=place, orientation="horizontal")
    bar.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=7)
    bar.outline.set_visible(False)
    place.set_title(title, fontsize=8)
    return figure
