"""Tables of sensitivity and transfer: encoders whose answer is known by construction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cdvae_kit.representation.methods.invariance_measures import (
    ProbeData,
    Table,
    mean_table,
    sensitivity_matrix,
    sensitivity_of_pairs,
    transfer_matrix,
)
from cdvae_kit.representation.methods.probing import prototype_probe
from cdvae_kit.representation.methods.similarity import sensitivity
from cdvae_kit.seeding import make_generator
from cdvae_kit.transforms import Identity
from cdvae_kit.transforms.images import Brightness, FlipHorizontal, Invert, Rotate

PICTURES = torch.rand(40, 3, 12, 12, generator=make_generator(0))
ENCODERS = {
    "columns": lambda x: x.mean(2).flatten(1),
    "rows": lambda x: x.mean(3).flatten(1),
    "colour": lambda x: x.mean((2, 3)),
    "ratios": lambda x: x.mean((2, 3)) / x.mean((1, 2, 3))[:, None],
}
TRANSFORMS: dict[str, Any] = {
    "flip": FlipHorizontal(),
    "turn": Rotate(),
    "light": Brightness(0.5, 1.0),
    "none": Identity(),
}


def table(seed: int = 1, **options: Any) -> Table:
    return sensitivity_matrix(ENCODERS, TRANSFORMS, PICTURES, generator=make_generator(seed), **options)


def test_each_encoder_feels_what_it_looks_at_and_nothing_else() -> None:
    found = table()
    assert found.rows == tuple(ENCODERS) and found.columns == tuple(TRANSFORMS)
    for blind in (("rows", "flip"), ("colour", "flip"), ("ratios", "flip"), ("ratios", "light")):
        assert found[blind] < 1e-5, blind
    for seeing in (("columns", "flip"), ("rows", "turn"), ("columns", "turn"), ("colour", "light")):
        assert found[seeing] > 0.2, seeing
    assert list(found.column("none").values()) == [0.0] * 4


def test_an_encoder_that_forgets_the_sample_scores_one() -> None:
    noise = iter(torch.randn(2, 400, 8, generator=make_generator(0)))
    pictures = torch.rand(400, 3, 4, 4, generator=make_generator(1))
    found = sensitivity_matrix(
        {"noise": lambda x: next(noise)}, {"x": Identity()}, pictures, generator=make_generator(2)
    )
    assert found["noise", "x"] == pytest.approx(1.0, abs=0.05)


def test_the_table_is_that_of_single_sensitivities_with_the_same_strangers() -> None:
    pairs = {"a": (PICTURES, PICTURES.flip(3)), "b": (PICTURES, 0.5 * PICTURES)}
    found = sensitivity_of_pairs(ENCODERS, pairs, generator=make_generator(3))
    seed = int(torch.randint(2**31, (), generator=make_generator(3)))
    for row, encoder in ENCODERS.items():
        for column, (first, second) in pairs.items():
            alone = sensitivity(encoder(first), encoder(second), generator=make_generator(seed))
            assert found[row, column] == pytest.approx(alone, rel=1e-6, abs=1e-9)


def test_another_company_changes_nothing() -> None:
    few = sensitivity_matrix(ENCODERS, {"light": TRANSFORMS["light"]}, PICTURES, generator=make_generator(1))
    assert few.column("light") == table().column("light")
    alone = sensitivity_matrix({"rows": ENCODERS["rows"]}, TRANSFORMS, PICTURES, generator=make_generator(1))
    assert alone.row("rows") == table().row("rows")
    assert table() == table() and table(1) != table(2)
    assert table(metric="cosine")["colour", "light"] < 1e-5 < table()["colour", "light"]


def labelled(separation: float, num: int = 200) -> ProbeData:
    """Two classes apart by `separation` along the first of two directions."""
    labels = torch.arange(2 * num) % 2
    x = torch.randn(2 * num, 2, generator=make_generator(4))
    x[:, 0] += separation * labels
    return ProbeData(x[:num], labels[:num], x[num:], labels[num:])


def test_a_target_is_served_by_the_encoder_that_keeps_its_feature() -> None:
    encoders = {"first": lambda x: x[:, :1], "second": lambda x: x[:, 1:], "both": lambda x: x}
    found = transfer_matrix(encoders, {"far": labelled(8.0), "near": labelled(0.0)})
    assert found["first", "far"] > 0.99 and found["both", "far"] > 0.99
    assert abs(found["second", "far"] - 0.5) < 0.12 and abs(found["first", "near"] - 0.5) < 0.12


def test_any_probe_serves() -> None:
    def first_label(train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
        return float(labels[0]) + len(train) + 10 * len(test)

    assert transfer_matrix({"x": lambda x: x}, {"t": labelled(1.0, 3)}, first_label)["x", "t"] == 33.0
    prototypes = transfer_matrix({"x": lambda x: x - 4.0}, {"t": labelled(8.0)}, prototype_probe)
    assert prototypes["x", "t"] > 0.95


def test_tables_are_read_by_name_and_averaged_by_place() -> None:
    one = Table(("a", "b"), ("x", "y"), ((0.0, 1.0), (2.0, 3.0)))
    two = Table(("a", "b"), ("x", "y"), ((1.0, 1.0), (4.0, 3.0)))
    assert mean_table([one, two]) == Table(("a", "b"), ("x", "y"), ((0.5, 1.0), (3.0, 3.0)))
    assert one.as_matrix("t").values == one.values
    with pytest.raises(KeyError, match="no 'z' in the table; there are x, y"):
        _ = one["a", "z"]
    with pytest.raises(ValueError, match="same rows and columns"):
        mean_table([one, Table(("a",), ("x",), ((0.0,),))])


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 and 4"):
        sensitivity_matrix({}, TRANSFORMS, PICTURES, generator=make_generator(0))
    with pytest.raises(ValueError, match="got 4 and 0"):
        sensitivity_of_pairs(ENCODERS, {}, generator=make_generator(0))
    with pytest.raises(ValueError, match="got 4 and 0"):
        transfer_matrix(ENCODERS, {})
    with pytest.raises(ValueError, match="at least 2"):
        sensitivity_matrix(ENCODERS, {"i": Invert()}, PICTURES[:1], generator=make_generator(0))
    with pytest.raises(ValueError, match="not finite"):
        sensitivity_matrix({"nan": lambda x: x.flatten(1) / 0.0}, TRANSFORMS, PICTURES, generator=make_generator(0))
