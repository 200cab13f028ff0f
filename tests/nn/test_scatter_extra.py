"""torch-scatter is an extra: sums over atoms and edges are the same with it and without it."""

import importlib.util

import pytest
import torch
import torch_geometric.typing
import torch_geometric.utils._scatter as pyg_scatter
from torch_geometric.utils import scatter

from cdvae_kit.seeding import make_generator

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("torch_scatter") is None,
    reason="torch-scatter is not installed: pip install --no-build-isolation '.[scatter]' after torch",
)


@needs_extra
@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_sums_are_the_same_with_and_without_torch_scatter(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(500, 7, generator=make_generator(0))
    index = torch.randint(0, 40, (500,), generator=make_generator(1)).sort().values
    assert torch_geometric.typing.WITH_TORCH_SCATTER
    with_extra = scatter(values, index, dim=0, dim_size=41, reduce=reduce)
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", False)
    without = scatter(values, index, dim=0, dim_size=41, reduce=reduce)
    torch.testing.assert_close(with_extra, without)

    import torch_scatter

    direct = torch_scatter.scatter(values, index, dim=0, dim_size=41, reduce=reduce)
    torch.testing.assert_close(direct, without)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_sums_need_no_torch_scatter(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", False)
    monkeypatch.delattr(pyg_scatter, "torch_scatter", raising=False)
    values = torch.randn(500, 7, generator=make_generator(2))
    index = torch.randint(0, 40, (500,), generator=make_generator(3))
    expected = torch.stack([values[index == i].sum(0) for i in range(41)])
    if reduce == "mean":
        expected = expected / torch.bincount(index, minlength=41).clamp_min(1).unsqueeze(-1)
    torch.testing.assert_close(scatter(values, index, dim=0, dim_size=41, reduce=reduce), expected)
