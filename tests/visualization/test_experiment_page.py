"""The page of experiments: what stands on it, what it refuses, that nothing from a result becomes markup."""

from __future__ import annotations

import dataclasses
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cdvae_kit.representation.panels import Bars
from cdvae_kit.representation.protocol import Claim, ExperimentResult
from cdvae_kit.visualization.report.experiment_page import ShownExperiment, claims_as_markdown, write_experiment_page
from tests.visualization.browser import open_page

VOID = {"meta", "img", "br", "link"}


class Checker(HTMLParser):
    """Opens and closes, and what stands in the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [values["href"] or ""] if "href" in values else []
        self.ids += [values["id"] or ""] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def shown(name: str = "toy", *, value: float = 0.2, quick: bool = False, skipped: bool = False) -> ShownExperiment:
    arms = {"a <b>": (0.1, 0.2, 0.3), "nan": (math.nan, 0.0, 0.0)}
    details = {"part": ({"skipped": "no <data>"},) * 3} if skipped else {}
    result = ExperimentResult(name, "Nobody, Nothing & all, arXiv 2405.01234", quick, (3, 4, 5), arms, details, 61.0)
    claims = [
        Claim("a < b", (value,) * 3, 0.1),
        Claim("never", (1.0,) * 3, 0.5, "at most"),
        Claim("nobody knows", (0.0, 0.5, 1.0), 0.4),
    ]
    return ShownExperiment("one <i>against</i> another", result, claims, [Bars("bars & <b>", "x", arms)], "run <it>")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_experiment_page([shown(), shown("other-toy", value=0.0, skipped=True)], folder / "index.html")


def test_every_element_is_closed_and_every_link_leads_somewhere(page: Path) -> None:
    checker = Checker(page.read_text(encoding="utf-8"))
    assert checker.open == []
    inside = [link[1:] for link in checker.links if link.startswith("#")]
    assert len(inside) >= 6 and set(inside) <= set(checker.ids)
    assert len(set(checker.ids)) == len(checker.ids)


def test_text_of_a_result_is_no_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "a &lt; b" in text and "<b>" not in text and "<i>" not in text and "run &lt;it&gt;" in text
    assert "no &lt;data&gt;" in text


def test_claims_are_counted_and_one_that_fails_is_printed_as_failing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Of 6 claims 1 hold, 3 fail and 2 are undecided, on 3 seeds; 2 experiments" in text
    counts = {"holds": 1, "fails": 3, "undecided": 2}
    assert {verdict: text.count(f'class="verdict {verdict}"') for verdict in counts} == counts
    assert "0.5 ± 0.2887" in text


def test_the_head_says_that_nothing_is_judged_where_nothing_is(tmp_path: Path) -> None:
    bare = dataclasses.replace(shown(), claims=[])
    assert "No claim is judged here; 1 experiments" in write_experiment_page([bare], tmp_path / "x.html").read_text()


def test_what_was_left_out_and_trials_are_said(tmp_path: Path, page: Path) -> None:
    assert "part was left out: no" in page.read_text(encoding="utf-8")
    trial = write_experiment_page([shown(quick=True)], tmp_path / "x.html").read_text(encoding="utf-8")
    assert "support no claim" in trial and "left out" not in trial


def test_the_paper_is_a_link_and_the_picture_is_inside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert 'href="https://arxiv.org/abs/2405.01234"' in text
    assert text.count("data:image/png;base64,") == 2 and 'alt="bars &amp; &lt;b&gt;"' in text


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_experiment_page([shown()], tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert first == second


def test_a_page_is_not_overwritten_unasked_and_needs_an_experiment(tmp_path: Path, page: Path) -> None:
    with pytest.raises(FileExistsError):
        write_experiment_page([shown()], page)
    with pytest.raises(ValueError, match="no experiments"):
        write_experiment_page([], tmp_path / "none.html")


def test_a_browser_opens_it_without_a_complaint(page: Path) -> None:
    opened = open_page(page)
    assert opened.errors == [] and "other-toy" in opened.dom


def test_the_table_for_a_text_has_a_row_a_claim() -> None:
    table = claims_as_markdown([*shown().claims, Claim("a | b", [math.nan] * 3, 0.5)]).splitlines()
    assert table[2:] == [
        "| a < b | at least 0.1 | 0.2 ± 0 | holds |",
        "| never | at most 0.5 | 1 ± 0 | **fails** |",
        "| nobody knows | at least 0.4 | 0.5 ± 0.2887 | undecided |",
        "| a \\| b | at least 0.5 | – ± – | undecided |",
    ]


def test_pictures_are_there_when_the_page_is_printed(tmp_path: Path) -> None:
    """One that loads when it is scrolled to comes out empty."""
    write_experiment_page([shown()], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<img" in text and 'loading="lazy"' not in text
