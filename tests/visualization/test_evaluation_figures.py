"""Figures of an evaluation: the numbers that they show, on a screen and on paper."""

import io
from typing import Any

import numpy as np
import pytest
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from cdvae_kit.metrics.evaluation_result import Distribution
from cdvae_kit.metrics.published import published_results
from cdvae_kit.visualization import (
    plot_distribution,
    plot_elements,
    plot_latent_map,
    plot_metrics,
    plot_space_groups,
    space_groups,
)
from cdvae_kit.visualization.distributions import bin_values
from cdvae_kit.visualization.elements import POSITIONS, element_shares
from cdvae_kit.visualization.latent import MOST_POINTS, project_codes
from tests.visualization.evaluations import evaluation, labels, metric

needs_pymatviz = pytest.mark.skipif(not space_groups.can_draw_wheels(), reason="pymatviz is not installed")


def continuous(generated: Any, reference: Any = None, name: str = "density") -> Distribution:
    theirs = None if reference is None else np.array(reference, dtype=float)
    return Distribution(name, "g/cm³", np.array(generated, dtype=float), theirs, "continuous")


def file_of(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=40)
    return file.getvalue()


# Distributions


def test_shares_of_a_histogram_sum_to_one_with_what_is_beyond() -> None:
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(5, 1, 500), [90.0, 4000.0]])
    binned = bin_values(continuous(values, generator.normal(5, 1, 300)))
    assert binned.generated.sum() == pytest.approx(1 - binned.beyond[0] / 502)
    assert binned.beyond[0] >= 2 and binned.edges[-1] < 20
    assert binned.num_generated == 502


def test_a_set_that_lies_elsewhere_is_wholly_on_the_axis() -> None:
    binned = bin_values(continuous(np.linspace(100, 110, 50), np.linspace(1, 2, 50)))
    assert binned.beyond == (0, 0)


def test_values_that_are_not_finite_are_left_out() -> None:
    binned = bin_values(continuous([1.0, np.nan, np.inf, 2.5], [np.nan]))
    assert (binned.num_generated, binned.num_reference) == (2, 0)


@pytest.mark.parametrize("values", [[3.7], [3.7] * 5, [1e300, 1e300], [1e-300], [0.1, 1e16], [-5.0, -5.0]])
def test_few_or_equal_values_have_bins_too(values: list[float]) -> None:
    binned = bin_values(continuous(values))
    assert (np.diff(binned.edges) > 0).all()
    assert binned.generated.sum() == pytest.approx(1.0)


def test_integers_have_one_bin_each() -> None:
    binned = bin_values(continuous([2, 3, 3, 5], [1], name="num_elems"))
    assert binned.edges.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert binned.generated.tolist() == [0, 0.25, 0.5, 0, 0.25]


def test_rare_labels_share_one_bar() -> None:
    binned = bin_values(labels("species", [f"s{i}" for i in range(40)] + ["s0"] * 10, None))
    assert binned.labels[0] == "s0" and binned.labels[-1] == "24 others" and len(binned.labels) == 17
    assert binned.generated.sum() == pytest.approx(1.0)


def test_crystal_systems_stand_in_their_own_order() -> None:
    binned = bin_values(labels("crystal_system", ["cubic", "triclinic", None], ["hexagonal"]))
    assert binned.labels[0] == "triclinic" and binned.labels[-1] == "cubic" and len(binned.labels) == 7
    assert binned.num_generated == 2


def test_space_groups_are_named() -> None:
    assert bin_values(labels("space_group", [225], None)).labels == ["Fm-3m (225)"]


@pytest.mark.parametrize("kind", ["png", "pdf"])
@pytest.mark.parametrize("reference", [[1.0, 2.0, 3.5], None, []])
def test_a_distribution_is_drawn_on_paper(reference: list[float] | None, kind: str) -> None:
    assert len(file_of(plot_distribution(continuous([1.0, 2.5], reference)), kind)) > 1000


def test_without_a_value_the_figure_says_so() -> None:
    figure = plot_distribution(continuous([np.nan], []))
    assert figure.axes[0].texts[0].get_text() == "no crystal has a value"
    interactive = plot_distribution(continuous([np.nan], []), interactive=True)
    assert interactive.layout.annotations[0].text == "no crystal has a value"


def test_a_name_with_a_dollar_is_no_formula() -> None:
    assert file_of(plot_distribution(continuous([1.0, 2.5], name=r"cost $\frac{")), "png")


def test_a_name_is_no_markup_for_plotly() -> None:
    figure = plot_distribution(continuous([1.0, 2.5], name="<b>gap</b>"), interactive=True)
    assert figure.layout.xaxis.title.text.startswith("&lt;b&gt;gap")


def test_screen_and_paper_show_the_same_shares() -> None:
    shown = continuous([2, 3, 3, 5], [2, 3], name="num_elems")
    bars = plot_distribution(shown, interactive=True).data[0]
    patch = plot_distribution(shown).axes[0].patches[0]
    assert np.allclose(bars.y, patch.get_data().values)


# Elements


def test_every_element_has_one_place() -> None:
    assert list(POSITIONS) == chemical_symbols[1:119]
    assert len(set(POSITIONS.values())) == 118


@pytest.mark.parametrize(
    ("symbol", "place"),
    [
        ("H", (1, 1)),
        ("He", (1, 18)),
        ("B", (2, 13)),
        ("Sc", (4, 3)),
        ("La", (8.5, 3)),
        ("Lu", (8.5, 17)),
        ("Hf", (6, 4)),
        ("Og", (7, 18)),
    ],
)
def test_an_element_stands_where_the_table_has_it(symbol: str, place: tuple[float, int]) -> None:
    assert POSITIONS[symbol] == place


def test_an_element_is_coloured_by_the_ratio_of_its_shares() -> None:
    shares = element_shares(labels("element", ["O", "O", "Ti", "H"], ["O", "O", "Ti", "Ti"]))
    colors = dict(zip(POSITIONS, shares.colored_by, strict=True))
    assert colors["O"] == pytest.approx(0.0)
    assert colors["Ti"] == pytest.approx(np.log2(25.1 / 50.1))
    assert colors["H"] == 2.0 and np.isnan(colors["He"])


def test_what_is_no_element_is_refused() -> None:
    with pytest.raises(ValueError, match="one element symbol an atom is expected, got Xx"):
        plot_elements(labels("element", ["O", "Xx"], None))


@pytest.mark.parametrize("reference", [["O", "Ti"], [], None])
@pytest.mark.parametrize("generated", [["O", "Cs", "Og"], []])
def test_a_table_is_drawn_of_any_sets(generated: list[str], reference: list[str] | None) -> None:
    shown = labels("element", generated, reference)
    assert len(plot_elements(shown, interactive=True).layout.annotations) == 118
    assert len(file_of(plot_elements(shown), "png")) > 5000


# Rates


def test_rates_alone_are_on_the_axis_of_rates() -> None:
    found = {
        entry.name: entry for entry in (metric("valid", 0.7), metric("wdist_density", 0.4), metric("unique", None))
    }
    (_, dots) = plot_metrics(found, interactive=True).data
    assert dots.y == ("valid",) and dots.x == (70.0,)
    assert dots.error_x.arrayminus == pytest.approx((10.0,))


def test_published_values_stand_in_the_row_of_their_metric() -> None:
    found = evaluation().metrics
    diamonds, _ = plot_metrics(found, published=published_results("mp_20"), interactive=True).data
    assert sorted(diamonds.x) == pytest.approx([86.70, 90.83, 93.55, 99.15, 100.0])
    assert set(diamonds.y) <= {"structure valid", "composition valid", "COV recall"}


def test_rates_are_drawn_on_paper_even_if_there_is_none() -> None:
    assert file_of(plot_metrics(evaluation().metrics, published=published_results("perov_5")), "pdf")
    assert file_of(plot_metrics({}), "png")


# Latent map


def test_the_axes_are_those_along_which_the_reference_varies() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(200, 5)) * np.array([0.1, 5.0, 0.1, 2.0, 0.1])
    found = project_codes(reference + 3.0, reference)
    covariance = np.cov(found.reference.T)
    assert covariance[0, 0] == pytest.approx(25, rel=0.3) and abs(covariance[0, 1]) < 1e-9
    assert found.explained[0] == pytest.approx(25 / 29, rel=0.1)


def test_generated_codes_do_not_move_the_axes() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(50, 4))
    first, second = (project_codes(generator.normal(size=(9, 4)) * scale, reference) for scale in (1, 100))
    assert np.array_equal(first.reference, second.reference)


def test_a_turned_latent_space_gives_the_same_map_up_to_signs() -> None:
    generator = np.random.default_rng(1)
    reference = generator.normal(size=(60, 3)) * np.array([3.0, 2.0, 1.0])
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    before, after = project_codes(reference, reference), project_codes(reference @ turn, reference @ turn)
    assert np.allclose(np.abs(before.reference), np.abs(after.reference))
    stretched = project_codes(reference * [1, 1, 9], reference * [1, 1, 9])
    assert not np.allclose(np.abs(before.reference), np.abs(stretched.reference))


@pytest.mark.parametrize("sizes", [(0, 0), (1, 0), (0, 1), (1, 1), (3, 1), (1, 3)])
@pytest.mark.parametrize("width", [1, 4])
def test_a_map_of_few_codes_is_drawn(sizes: tuple[int, int], width: int) -> None:
    generator = np.random.default_rng(0)
    codes = [generator.normal(size=(size, width)) for size in sizes]
    assert file_of(plot_latent_map(*codes), "png")
    assert len(plot_latent_map(*codes, interactive=True).data[1].x) == sizes[0]


def test_crystals_without_a_code_are_left_out_and_large_sets_are_thinned() -> None:
    codes = np.random.default_rng(0).normal(size=(MOST_POINTS + 50, 3))
    codes[:10] = np.nan
    figure = plot_latent_map(codes, codes[10:20], labels=[str(i) for i in range(len(codes))], interactive=True)
    assert len(figure.data[1].x) == MOST_POINTS and "of 1,540" in figure.data[1].name
    assert "0" not in figure.data[1].text


def test_codes_of_two_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="one width for both"):
        plot_latent_map(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="one label for each of the 2 generated crystals, got 1"):
        plot_latent_map(np.zeros((2, 3)), np.zeros((2, 3)), labels=["a"])


# Wheels


@needs_pymatviz
def test_a_system_has_one_colour_in_both_wheels() -> None:
    figure = plot_space_groups(labels("space_group", [225, 225, 1], [1, 1, 62, 225, None]))
    colors = [dict(zip(wheel.ids, wheel.marker.colors, strict=True)) for wheel in figure.data]
    assert colors[0]["cubic"] == colors[1]["cubic"] == colors[1]["cubic/225"] != colors[1]["triclinic"]
    assert figure.data[1].ids[0].startswith("triclinic")


@needs_pymatviz
def test_wheels_of_nothing_are_empty() -> None:
    assert len(plot_space_groups(labels("space_group", [None], [])).data) == 0


def test_without_pymatviz_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_groups, "can_draw_wheels", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=r"cdvae-kit\[report\]"):
        plot_space_groups(labels("space_group", [1], None))
