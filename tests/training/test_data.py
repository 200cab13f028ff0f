"""Batches: every crystal once an epoch, shared fairly, cut rightly."""

from __future__ import annotations

import pytest
import torch

from cdvae_kit.training import data
from cdvae_kit.training.data import StepLoader, ValidationLoader, find_graph, steps_per_epoch, training_order
from tests.training.toy import make_crystals, make_toy


def loader(
    num_crystals: int,
    batch_size: int,
    *,
    steps: range = range(40),
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    stop_after: int = 1000,
) -> StepLoader:
    seen: list[None] = []

    def stops() -> bool:
        seen.append(None)
        return len(seen) > stop_after

    return StepLoader(
        num_crystals,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world_size=world_size,
        next_step=lambda: steps.start,
        last_step=lambda step: steps.stop,
        stops=stops,
    )


@pytest.mark.parametrize(("num_crystals", "batch_size"), [(100, 64), (17, 4), (3, 8), (64, 64), (129, 64)])
def test_every_crystal_comes_once_an_epoch(num_crystals: int, batch_size: int) -> None:
    in_epoch = steps_per_epoch(num_crystals, batch_size)
    batches = [batch.chosen for batch in loader(num_crystals, batch_size, steps=range(3 * in_epoch))]
    for epoch in range(3):
        together = torch.cat(batches[epoch * in_epoch : (epoch + 1) * in_epoch])
        assert torch.equal(together.sort().values, torch.arange(num_crystals))


@pytest.mark.parametrize(("num_crystals", "batch_size"), [(100, 64), (17, 4), (129, 64), (1000, 7)])
def test_batches_are_as_even_as_can_be(num_crystals: int, batch_size: int) -> None:
    sizes = {len(batch.chosen) for batch in loader(num_crystals, batch_size)}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 1.5 * batch_size


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    order = training_order(50, seed=3, epoch=2)
    assert torch.equal(order, training_order(50, seed=3, epoch=2))
    assert not torch.equal(order, training_order(50, seed=3, epoch=1))
    assert not torch.equal(order, training_order(50, seed=2, epoch=2))


def test_a_loader_that_starts_late_goes_on_as_if_it_had_started_early() -> None:
    all_of_them = list(loader(17, 4, steps=range(20)))
    late = list(loader(17, 4, steps=range(7, 20)))
    assert [batch.step for batch in late] == list(range(7, 20))
    for whole, part in zip(all_of_them[7:], late, strict=True):
        assert torch.equal(whole.chosen, part.chosen)


def test_a_loader_ends_when_it_is_told_to() -> None:
    assert [batch.step for batch in loader(17, 4, stop_after=3)] == [0, 1, 2]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_processes_share_each_batch_of_the_one(world_size: int) -> None:
    whole = list(loader(23, 6))
    parts = [list(loader(23, 6, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(whole)}
    for step, batch in enumerate(whole):
        together = torch.cat([part[step].chosen for part in parts])
        assert torch.equal(together, batch.chosen)
        assert min(len(part[step].chosen) for part in parts) > 0


@pytest.mark.parametrize("num_crystals", [1, 5, 8, 9])
def test_the_processes_validate_each_crystal_once_in_equally_many_steps(num_crystals: int) -> None:
    parts = [list(ValidationLoader(num_crystals, batch_size=4, rank=rank, world_size=3)) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    seen = torch.cat([batch.chosen for part in parts for batch in part])
    assert torch.equal(seen.sort().values, torch.arange(num_crystals))


def test_edges_found_in_pieces_are_the_edges_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crystals, model = make_crystals(11, seed=4), make_toy()
    whole = model.graph(crystals)
    monkeypatch.setattr(data, "_CRYSTALS_AT_ONCE", 4)
    pieces = find_graph(model, crystals)
    assert torch.equal(whole.edge_index, pieces.edge_index)
    assert torch.equal(whole.cell_offsets, pieces.cell_offsets)
    assert torch.equal(whole.num_edges, pieces.num_edges)
