"""Figures of experiments: every kind of panel, awkward numbers, what is refused."""

from __future__ import annotations

import io
import math

import pytest
import torch
from matplotlib.figure import Figure

from cdvae_kit.representation.panels import Bars, Curve, Lines, Matrix, Panel, Pictures, Points
from cdvae_kit.seeding import make_generator
from cdvae_kit.visualization.experiments import plot_experiment

BARS = Bars("arms", "accuracy", {"a": (0.4, 0.5, 0.6), "b": (0.1,), "c": (math.nan,)}, ("chance", 0.1))
LINES = Lines("law", "n", "N", {"k = 1": Curve((1, 10), (1, 100), (0.1, math.nan))}, log_x=True, log_y=True)
MATRIX = Matrix("transfer", ("r1", "r2"), ("c1", "c2", "c3"), ((0.1, 0.2, 0.9), (math.nan, 0.5, 0.6)))
PICTURES = Pictures("views", torch.rand(2, 3, 3, 8, 6, generator=make_generator(0)), ("one", "two"))
POINTS = Points("space", {"0": ((0.0, 1.0, 5.0), (2.0, 3.0, 9.0)), "1": ((), ())})


def drawn(*panels: Panel) -> Figure:
    figure = plot_experiment(panels)
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


@pytest.mark.parametrize("panel", [BARS, LINES, MATRIX, PICTURES, POINTS], ids=lambda panel: type(panel).__name__)
def test_each_kind_of_panel_is_drawn(panel: Panel) -> None:
    (axes,) = drawn(panel).axes
    assert axes.get_title() == panel.title


def test_bars_stand_at_their_means_with_a_dot_a_seed() -> None:
    (axes,) = drawn(BARS).axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.5, 0.1])
    assert [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "."] == [3, 1]
    assert any("no number" in text.get_text() for text in axes.texts)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


def test_a_table_shows_its_numbers_and_skips_what_is_none() -> None:
    (axes,) = drawn(MATRIX).axes
    assert [text.get_text() for text in axes.texts] == ["0.10", "0.20", "0.90", "0.50", "0.60"]


def test_a_group_of_points_is_named_at_its_middle_and_an_empty_one_is_not() -> None:
    (axes,) = drawn(POINTS).axes
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("0", (1.0, 3.0))]
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 0]


def test_panels_stand_in_rows_of_three_and_empty_places_are_blank() -> None:
    figure = drawn(BARS, LINES, MATRIX, PICTURES)
    assert len(figure.axes) == 6
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2


def test_pictures_lie_where_they_should() -> None:
    (axes,) = drawn(PICTURES).axes
    sheet = torch.as_tensor(axes.images[0].get_array().copy())
    assert sheet.shape == (17, 20, 3)
    assert torch.allclose(sheet[9:, 14:].float(), PICTURES.images[1, 2].permute(1, 2, 0), atol=1e-6)
    assert bool((sheet[8] == 1.0).all())


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="no panels"):
        plot_experiment([])
    with pytest.raises(ValueError, match="'odd' has 1 rows and 1 columns"):
        plot_experiment([Matrix("odd", ("r",), ("c",), ((1.0, 2.0),))])
    with pytest.raises(ValueError, match="1 or 3 channels"):
        plot_experiment([Pictures("odd", torch.zeros(2, 3, 8, 8))])
