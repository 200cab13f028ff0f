"""The report as a file: what stands in it, what it must not do, whatever the evaluation holds."""

import dataclasses
import json
import re
import warnings
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdvae_kit.metrics.crystals import CrystalArrays, unusable
from cdvae_kit.metrics.evaluation_result import Evaluation
from cdvae_kit.visualization import space_groups, write_report
from cdvae_kit.visualization.report.evaluation_page import _data
from tests.visualization.evaluations import SPITE, crystal, empty_evaluation, evaluation, row

SECTIONS = ["numbers", "distributions", "elements", "latent", "crystals", "failures", "reading", "settings"]
VOID = {"meta", "input", "br", "img", "link", "hr", "stop", "circle", "path"}
LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "ping", "xlink:href"}


class Reader(HTMLParser):
    """Elements, ids, text outside of scripts, content of scripts by id, and what does not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self.styles = ""
        self.faults: list[str] = []
        self.open: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags[tag] += 1
        self.elements.append((tag, named))
        if tag not in VOID:
            self.open.append((tag, named.get("id") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"</{tag}> after {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        tag, name = self.open[-1] if self.open else ("", "")
        if tag == "script":
            self.scripts[name] = self.scripts.get(name, "") + data
        elif tag == "style":
            self.styles += data
        else:
            self.text += data

    @property
    def ids(self) -> list[str]:
        return [str(named["id"]) for _, named in self.elements if "id" in named]

    @property
    def figures(self) -> list[str]:
        return [str(named["id"]) for _, named in self.elements if named.get("class") == "figure"]


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader


def report_of(found: Evaluation, folder: Path, **options: Any) -> Reader:
    return read(write_report(found, folder / "report.html", overwrite=True, **options))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return report_of(evaluation(), tmp_path_factory.mktemp("report"), dataset="perov_5")


def test_every_section_is_there_and_in_the_menu(page: Reader) -> None:
    assert [str(named["id"]) for tag, named in page.elements if tag == "section"] == SECTIONS
    links = [named.get("href") for tag, named in page.elements if tag == "a"]
    assert [f"#{name}" for name in SECTIONS] == [link for link in links if str(link).startswith("#")][1:]


def test_the_markup_nests_and_no_id_stands_twice(page: Reader) -> None:
    assert (page.faults, page.open) == ([], [])
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []


def test_the_reader_of_markup_sees_what_does_not_nest() -> None:
    reader = Reader()
    reader.feed("<p><b>x</p></b>")
    assert reader.faults


def test_every_figure_has_its_data_and_words_for_who_does_not_see_it(page: Reader) -> None:
    # rates, density, gap, space groups, crystal systems, wheels, elements, latent map
    assert len(page.figures) == (8 if space_groups.can_draw_wheels() else 7)
    for name in page.figures:
        assert json.loads(page.scripts[f"{name}-data"])["data"]
    named = [named for _, named in page.elements if named.get("role") == "img"]
    assert named and all(str(attributes.get("aria-label")).strip() for attributes in named)


def test_nothing_is_loaded_from_anywhere(page: Reader) -> None:
    loading = [(tag, key) for tag, named in page.elements for key in named if key in LOADING]
    assert (loading, page.tags["link"], page.tags["iframe"]) == ([], 0, 0)
    assert "@import" not in page.styles and "url(" not in page.styles
    policy = [named["content"] for _, named in page.elements if named.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1 and str(policy[0]).startswith("default-src 'none'")


def test_plotly_stands_in_it_once(tmp_path: Path) -> None:
    text = write_report(evaluation(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("* plotly.js v") == 1


def test_published_values_stand_beside_ours_with_their_source(page: Reader) -> None:
    assert "98.59 %" in page.text and "99.74 %" in page.text and "DiffCSP" in page.text
    hrefs = [str(named.get("href")) for tag, named in page.elements if tag == "a"]
    assert "https://arxiv.org/abs/2110.06197" in hrefs


def test_without_a_data_set_nothing_published_is_shown(tmp_path: Path) -> None:
    reader = report_of(evaluation(), tmp_path)
    assert "Published" not in reader.text.replace("Published COV", "") and "DiffCSP" not in reader.text


def test_a_rate_is_printed_with_its_interval_and_denominator(page: Reader) -> None:
    cells = re.sub(r"\s+", " ", page.text)
    assert re.search(r"comp_valid\s*90\.0 %\s*80\.0 – 100\.0 %\s*9", cells)


def test_what_is_at_its_ceiling_is_warned_of(page: Reader) -> None:
    assert "At the ceiling here: structure valid." in page.text
    assert "Here recall is 60.0 % as published and 20.0 % jointly." in page.text


def test_each_failure_stands_with_its_count_and_its_reason(page: Reader) -> None:
    # 3 and 11 of 12 have atoms too near, 7 could not be built
    assert "3 of 12 crystals have a reason against them" in page.text
    assert "X and X … A apart" in page.text
    assert "Cs and Cl 0.31 A apart (#3)" in page.text


def test_every_card_says_the_rule_that_chose_it(page: Reader) -> None:
    assert page.text.count("Chosen: ") == page.tags["article"] > 5
    assert "there is nothing to draw: it could not be built" in page.text


def test_every_crystal_that_turns_has_its_data_a_still_and_a_button(page: Reader) -> None:
    crystals = json.loads(page.scripts["crystals-data"])
    stages = [named for _, named in page.elements if named.get("data-crystal") is not None]
    assert [str(named["data-crystal"]) for named in stages] == [str(i) for i in range(len(crystals))]
    assert page.tags["button"] == len(crystals) == page.tags["article"] - 1
    used = set(re.findall(r"url\(#(e\d+)\)", " ".join(str(n.get("fill")) for _, n in page.elements)))
    assert used and used <= set(page.ids)


def test_settings_stand_in_it(page: Reader) -> None:
    assert "smact-2014" in page.text and "cdvae-kit 0" in page.text


def test_text_from_files_is_never_markup(tmp_path: Path) -> None:
    clean, spiteful = report_of(evaluation(), tmp_path), report_of(evaluation(spite=SPITE), tmp_path, title=SPITE)
    assert spiteful.faults == []
    assert spiteful.tags["script"] == clean.tags["script"]
    # in names, reasons, notes, settings and the title it is text
    assert spiteful.text.count(SPITE) > 10
    for name, content in spiteful.scripts.items():
        if name:
            assert "<" not in content
            json.loads(content)


def test_the_numbers_of_a_formula_stand_below_its_letters(tmp_path: Path) -> None:
    found = evaluation()
    found = dataclasses.replace(
        found, crystals=tuple(dataclasses.replace(one, formula=f"Ba<2>{SPITE}Ti3") for one in found.crystals)
    )
    page = report_of(found, tmp_path)
    assert page.faults == []
    assert page.tags["sub"] > 0 and "<sub>" not in page.text
    # whatever else a formula holds is text
    assert page.tags["script"] == report_of(evaluation(), tmp_path).tags["script"]


def test_data_cannot_end_its_script_element() -> None:
    content = json.dumps({"name": "</script><!--<script>&"})
    reader = Reader()
    reader.feed(_data("x", content))
    assert json.loads(reader.scripts["x"]) == json.loads(content) and reader.tags["script"] == 1


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(empty_evaluation(), id="nothing at all"),
        pytest.param(evaluation(num_reference=0, with_codes=False), id="no reference, no codes"),
        pytest.param(evaluation(num_generated=1), id="one crystal"),
        pytest.param(dataclasses.replace(evaluation(), metrics={}), id="no metric"),
        pytest.param(dataclasses.replace(evaluation(), distributions={}), id="no distribution"),
        pytest.param(dataclasses.replace(evaluation(), settings={}), id="no settings"),
    ],
)
def test_what_is_missing_leaves_a_page_that_says_so(found: Evaluation, tmp_path: Path) -> None:
    reader = report_of(found, tmp_path)
    assert reader.faults == []
    assert [str(named["id"]) for tag, named in reader.elements if tag == "section"] == SECTIONS
    for name in reader.figures:
        json.loads(reader.scripts[f"{name}-data"])


def test_no_valid_crystal_leaves_only_failures_to_show(tmp_path: Path) -> None:
    broken = [unusable("there is no atom") for _ in range(4)]
    nothing = np.zeros(0)
    found = evaluation(num_generated=4)
    found = dataclasses.replace(
        found,
        generated=broken,
        crystals=[row(i, reason="there is no atom", formula="", num_atoms=0, space_group=None) for i in range(4)],
        distributions={
            name: dataclasses.replace(entry, generated=nothing.astype(entry.generated.dtype))
            for name, entry in found.distributions.items()
        },
        codes=(np.full((4, 16), np.nan), np.zeros((20, 16))),
    )
    reader = report_of(found, tmp_path)
    assert (reader.tags["article"], json.loads(reader.scripts["crystals-data"])) == (1, [])
    assert "4 of 4 crystals have a reason against them" in reader.text


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (CrystalArrays(np.full((3, 3), np.nan), np.zeros((1, 3)), np.array([8])), "cannot be drawn"),
        (crystal([8] * 2500), "2,500 atoms are too many for a picture here"),
    ],
)
def test_a_crystal_that_cannot_be_drawn_says_why(odd: CrystalArrays, words: str, tmp_path: Path) -> None:
    numbers = len(odd.atomic_numbers)
    found = dataclasses.replace(empty_evaluation(), generated=[odd], crystals=[row(0, num_atoms=numbers)])
    assert words in report_of(found, tmp_path).text


@pytest.mark.parametrize("length", [1e-2, 1e6])
def test_an_absurd_cell_is_drawn_to_its_own_scale(length: float, tmp_path: Path) -> None:
    found = dataclasses.replace(empty_evaluation(), generated=[crystal(length=length)], crystals=[row(0)])
    reader = report_of(found, tmp_path)
    assert len(json.loads(reader.scripts["crystals-data"])) == 1
    assert "nan" not in " ".join(str(named.get("cx")) for _, named in reader.elements)


def test_the_file_grows_little_with_the_number_of_crystals(tmp_path: Path) -> None:
    small, large = (
        write_report(evaluation(size, size), tmp_path / f"{size}.html").stat().st_size for size in (10, 1000)
    )
    assert large < 5.6e6 and large - small < 3e5


def test_the_same_evaluation_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report(evaluation(), tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_a_file_that_is_there_is_replaced_only_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        write_report(empty_evaluation(), path)
    assert path.read_text() == "mine"
    assert write_report(empty_evaluation(), path, overwrite=True).stat().st_size > 1e6
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_an_unknown_data_set_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="results are published here for perov_5, carbon_24, mp_20"):
        write_report(empty_evaluation(), tmp_path / "report.html", dataset="qm9")
    assert list(tmp_path.iterdir()) == []


def test_without_pymatviz_the_page_says_what_is_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdvae_kit.visualization.report.sections.can_draw_wheels", lambda: False)
    reader = report_of(evaluation(), tmp_path)
    assert (
        "Not drawn: the wheels of space groups need pymatviz: python -m pip install 'cdvae-kit[report]'" in reader.text
    )


def test_arrays_that_may_not_be_written_to_are_drawn_without_a_warning(tmp_path: Path) -> None:
    one = crystal()
    for array in (one.lattice, one.frac_coords, one.atomic_numbers):
        array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(dataclasses.replace(empty_evaluation(), generated=[one], crystals=[row(0)]), tmp_path / "a.html")


# Reading on a phone, best crystals, sizes, pictures


def test_the_best_carry_no_red_cross(tmp_path: Path) -> None:
    rows = [row(i, verdicts={"valid": True, "novel": True, "covered_joint": False}) for i in range(3)]
    rows.append(row(3, reason="Cs and Cl 0.40 A apart"))
    found = dataclasses.replace(evaluation(4), crystals=rows, generated=[crystal(seed=i) for i in range(4)])
    page = write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    best, worst = page.index("<h3>Best</h3>"), page.index("<h3>Worst</h3>")
    assert 'class="no"' not in page[best:worst] and "not near a reference" in page[best:worst]
    # the control: a failure has one
    assert 'class="no"' in page[worst:]


@pytest.mark.parametrize(("sizes", "warns"), [((12, 20), True), ((10_000, 9_046), False)])
def test_sizes_that_are_not_those_of_papers_are_said(tmp_path: Path, sizes: tuple[int, int], warns: bool) -> None:
    found = evaluation(12)
    rows = [found.crystals[0]] * sizes[0]
    found = dataclasses.replace(
        found, crystals=rows, generated=[crystal()] * sizes[0], reference=[crystal()] * sizes[1]
    )
    text = report_of(dataclasses.replace(found, codes=None), tmp_path, dataset="mp_20").text
    assert ("Other sizes than the published ones" in text) is warns
    if warns:
        words = "12 generated crystals are compared with 20 references; papers take 10,000 against the 9,046"
        assert words in " ".join(text.split())


def test_each_picture_has_a_legend_of_its_elements(tmp_path: Path) -> None:
    found = dataclasses.replace(evaluation(1), generated=[crystal((55, 17))], crystals=[row(0)])
    page = write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    legend = page[page.index('<ul class="legend">') :][:300]
    assert "Cs" in legend and "Cl" in legend and legend.count("background:#") == 2


def test_a_number_stands_with_its_unit(tmp_path: Path) -> None:
    page = write_report(evaluation(), tmp_path / "report.html").read_text(encoding="utf-8")
    assert '1.2<span class="unit"> g/cm³</span>' in page


def test_the_page_has_rules_for_phones_for_dark_and_for_paper(tmp_path: Path) -> None:
    styles = report_of(evaluation(), tmp_path).styles
    for rule in ("@media screen and (max-width: 600px)", "prefers-color-scheme: dark", "@media print"):
        assert rule in styles


def _contrast(first: str, second: str) -> float:
    """Of two colours, 1 to 21 (WCAG 2.2, relative luminance)."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dim, bright = sorted((luminance(first), luminance(second)))
    return (bright + 0.05) / (dim + 0.05)


def test_words_are_readable_on_light_and_dark_screens_and_on_paper() -> None:
    """4.5 to 1 for words, 3 to 1 for marks (WCAG 2.2, 1.4.3 and 1.4.11)."""
    from cdvae_kit.visualization.report.html_page import resource

    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)
    styles = resource("report.css")
    blocks = re.findall(r":root(\[data-paper\])? \{([^}]*)\}", styles)
    assert len(blocks) == 4
    light = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", blocks[0][1]))
    for _, block in blocks:
        colors = light | dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
        for ground in ("paper", "ground", "badge"):
            for words in ("ink", "soft", "generated", "good", "bad"):
                assert _contrast(colors[words], colors[ground]) >= 4.5, (words, ground, colors)
        for mark in ("generated", "published"):
            assert _contrast(colors[mark], colors["paper"]) >= 3.0, (mark, colors)


def test_paper_has_the_same_colours_for_figures_and_for_words() -> None:
    from cdvae_kit.visualization.report.html_page import resource

    blocks = re.findall(r":root(?:\[data-paper\])? \{\s*color-scheme: light;([^}]*)\}", resource("report.css"))
    figures, words = (dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block)) for block in blocks)
    assert {name: figures[name] for name in words} == words
