"""Facts of papers: that they are well formed, and a few of them by heart."""

from collections import Counter

import pytest

from cdvae_kit.metrics.evaluation_result import SHARE
from cdvae_kit.metrics.published import PUBLISHED, PUBLISHED_DATASETS, SOURCES, published_results
from cdvae_kit.metrics.registry import registered_metrics


def test_no_model_has_two_values_of_one_metric_under_one_protocol() -> None:
    keys = Counter((e.dataset, e.metric, e.model, e.protocol, e.note) for e in PUBLISHED)
    assert [key for key, count in keys.items() if count > 1] == []


def test_rates_are_shares_of_one() -> None:
    rates = {metric.name for metric in registered_metrics().values() if metric.unit == SHARE}
    shown = [entry.value for entry in PUBLISHED if entry.metric in rates]
    assert shown and all(0 <= value <= 1 for value in shown)


def test_every_source_belongs_to_an_entry() -> None:
    assert set(SOURCES) <= {entry.model for entry in PUBLISHED}


def test_the_sets_are_the_four_of_the_field() -> None:
    assert set(PUBLISHED_DATASETS) == {"perov_5", "carbon_24", "mp_20", "mpts_52"}


def test_cdvae_on_mp_20_is_as_its_paper_prints_it() -> None:
    # Table 2 of arXiv 2110.06197
    values = {
        e.metric: e.value for e in published_results("mp_20") if e.model == "CDVAE" and e.protocol == "generation"
    }
    assert (values["comp_valid"], values["cov_recall"], values["cov_precision"]) == (0.8670, 0.9915, 0.9949)
    assert (values["wdist_density"], values["wdist_num_elems"]) == (0.6875, 1.432)


def test_another_set_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"results are published here for .*, got 'mp20'"):
        published_results("mp20")
