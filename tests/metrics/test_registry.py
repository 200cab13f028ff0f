"""What a metric says of itself, and that one of the caller's own goes wherever those of the package go."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import EvaluationSettings, Measured, Metric, evaluate, save_evaluation
from cdvae_kit.metrics.crystal_set import CrystalSet
from cdvae_kit.metrics.crystals import as_arrays
from cdvae_kit.metrics.evaluation_result import SECTIONS, SHARE
from cdvae_kit.metrics.evidence import Evidence
from cdvae_kit.metrics.registry import FAMILIES, registered_metrics
from cdvae_kit.metrics.user_metrics import StructureFunction, metric_of

PLAIN = EvaluationSettings(fingerprints=False)
SALT = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def edges(evidence: Evidence) -> Measured:
    lengths = np.array([np.nan if c.fault else np.linalg.norm(c.lattice[0]) for c in evidence.ours])
    return Measured(float(np.nanmean(lengths)), len(lengths), note="of the first cell vector", per_crystal=lengths)


EDGE = Metric("mean_edge", "mean edge", "other", "lower", "Å", "this test", (), edges)


def test_every_metric_says_what_it_is_called_and_where_it_comes_from() -> None:
    for name, metric in registered_metrics().items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
        assert metric.label and metric.source and metric.section in SECTIONS, name


def test_no_two_metrics_have_one_name_or_label() -> None:
    every = [metric for family in FAMILIES for metric in family.metrics]
    assert len({metric.name for metric in every}) == len({metric.label for metric in every}) == len(every)


def test_rates_are_shares() -> None:
    found = evaluate([SALT, None, SALT * (2, 1, 1)], reference=[SALT], train=[SALT], settings=PLAIN).metrics
    rates = [metric for metric in found.values() if metric.unit == SHARE]
    assert len(rates) > 5 and all(0 <= (metric.value or 0) <= 1 for metric in rates)


def test_a_metric_of_one_s_own_stands_in_the_files(tmp_path: Path) -> None:
    found = evaluate([SALT, None], settings=PLAIN, metrics=[EDGE])
    assert (found.metrics["mean_edge"].label, found.metrics["mean_edge"].unit) == ("mean edge", "Å")
    save_evaluation(found, tmp_path)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["mean_edge"] == pytest.approx(4.1) and content["details"]["mean_edge"]["section"] == "other"
    with (tmp_path / "crystals.csv").open() as file:
        assert [row["mean_edge"] for row in csv.DictReader(file)] == ["4.1", ""]


def test_a_metric_is_computed_only_where_what_it_needs_is_given() -> None:
    against = Metric("n_both", "both sets", "other", None, "", "this test", ("reference",), lambda e: Measured(1.0, 1))
    assert "n_both" not in evaluate([SALT], settings=PLAIN, metrics=[against]).metrics
    assert "n_both" in evaluate([SALT], reference=[SALT], settings=PLAIN, metrics=[against]).metrics


def test_a_name_that_is_taken_is_refused() -> None:
    twin = Metric("valid", "valid again", "other", None, "", "this test", (), edges)
    for metrics in ([twin], [EDGE, EDGE]):
        with pytest.raises(ValueError, match="already"):
            evaluate([SALT], settings=PLAIN, metrics=metrics)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"section": "mine"}, "validity"), ({"needs": ("hull",)}, "stability"), ({"label": ""}, "label")],
)
def test_a_metric_that_makes_no_sense_is_refused(changes: dict, words: str) -> None:
    fields = {name: getattr(EDGE, name) for name in EDGE.__dataclass_fields__}
    with pytest.raises(ValueError, match=words):
        Metric(**(fields | changes))


def test_evidence_is_computed_once_and_only_when_asked_for() -> None:
    asked: list[int] = []

    def count(evidence: Evidence) -> int:
        asked.append(len(evidence.ours))
        return len(asked)

    evidence = Evidence(generated=crystals())
    assert asked == [] and evidence.once(count) == evidence.once(count) == 1
    assert evidence.groups is evidence.groups


def crystals() -> CrystalSet:
    return CrystalSet(as_arrays([SALT]), [""])


def test_a_function_of_structures_is_a_metric() -> None:
    def volumes(structures: list[Structure]) -> list[float]:
        return [structure.volume for structure in structures]

    found = evaluate([SALT, None, SALT * (2, 1, 1)], settings=PLAIN, metrics=[metric_of(volumes, "volume")])
    value = found.metrics["volume"]
    assert (value.value, value.num_crystals, value.section) == (pytest.approx(1.5 * 4.1**3), 2, "other")
    assert [row.values["volume"] for row in found.crystals] == [pytest.approx(4.1**3), None, pytest.approx(2 * 4.1**3)]


def test_a_function_of_the_whole_set_is_a_metric() -> None:
    found = evaluate([SALT, None], settings=PLAIN, metrics=[metric_of(len, "how_many")])
    assert found.metrics["how_many"].value == 1.0 and "how_many" not in found.crystals[0].values


@pytest.mark.parametrize(
    ("function", "words"),
    [(lambda structures: [1.0, 2.0], "2 values for 1"), (lambda structures: 1 / 0, "ZeroDivisionError")],
)
def test_a_function_that_fails_gives_no_number_but_the_reason(function: StructureFunction, words: str) -> None:
    value = evaluate([SALT], settings=PLAIN, metrics=[metric_of(function, "mine")]).metrics["mine"]
    assert value.value is None and words in value.note


def test_a_metric_of_one_s_own_stands_in_the_report(tmp_path: Path) -> None:
    from cdvae_kit.visualization import write_report

    found = evaluate([SALT, None], settings=PLAIN, metrics=[EDGE])
    page = write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "mean edge" in page and "<code>mean_edge</code>" in page and "lower is better" in page
