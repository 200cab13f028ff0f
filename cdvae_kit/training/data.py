"""Batches cut from flat tensors that live on the device; the only thing that is shuffled is a list of indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.graph import PeriodicGraph
from cdvae_kit.seeding import make_generator
from cdvae_kit.training.protocols import TrainableNetwork

_CRYSTALS_AT_ONCE = 512
_SHUFFLE_KEY = 1


class IndexBatch(NamedTuple):
    """What a loader yields: the number of the step, and which crystals it takes."""

    step: int
    chosen: Tensor


class TrainingBatch(NamedTuple):
    """The crystals of a step and the edges between their atoms, on the device."""

    step: int
    crystals: CrystalBatch
    graph: PeriodicGraph


def steps_per_epoch(num_crystals: int, batch_size: int) -> int:
    """Steps in which every crystal comes once: batches are as even as can be, none of them a small remainder.

    >>> steps_per_epoch(100, 64), steps_per_epoch(90, 64), steps_per_epoch(10, 64)
    (2, 1, 1)
    """
    return max(1, round(num_crystals / batch_size))


def training_order(num_crystals: int, *, seed: int, epoch: int) -> Tensor:
    """(num_crystals,) long: the order of an epoch, a function of (seed, epoch) alone."""
    return torch.randperm(num_crystals, generator=make_generator(seed, _SHUFFLE_KEY, epoch))


class StepLoader:
    """Training batches from the step that training stands at to the next validation, then from there to the one after.

    It has no length: it may end early, when time is up or the user wants to stop.
    """

    def __init__(
        self,
        num_crystals: int,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        next_step: Callable[[], int],
        last_step: Callable[[int], int],
        stops: Callable[[], bool],
    ) -> None:
        self._num_crystals = num_crystals
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._next_step = next_step
        self._last_step = last_step
        self._stops = stops

    def __iter__(self) -> Iterator[IndexBatch]:
        step = self._next_step()
        end = self._last_step(step)
        in_epoch = steps_per_epoch(self._num_crystals, self._batch_size)
        epoch = -1
        batches: tuple[Tensor, ...] = ()
        while step < end and not self._stops():
            if step // in_epoch != epoch:
                epoch = step // in_epoch
                order = training_order(self._num_crystals, seed=self._seed, epoch=epoch)
                batches = order.tensor_split(in_epoch)
            index = batches[step % in_epoch].tensor_split(self._world_size)[self._rank]
            yield IndexBatch(step, index)
            step += 1


class ValidationLoader:
    """The validation crystals in their order; ranks get equally many batches, the last ones perhaps empty."""

    def __init__(self, num_crystals: int, *, batch_size: int, rank: int, world_size: int) -> None:
        self._batches = [part.tensor_split(world_size)[rank] for part in torch.arange(num_crystals).split(batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[IndexBatch]:
        for number, index in enumerate(self._batches):
            yield IndexBatch(number, index)


def find_graph(model: TrainableNetwork, crystals: CrystalBatch) -> PeriodicGraph:
    """The edges of all crystals, found once, some hundred crystals at a time."""
    parts, first_atom = [], 0
    for index in torch.arange(len(crystals)).split(_CRYSTALS_AT_ONCE):
        some = crystals.select(index)
        graph = model.graph(some)
        parts.append((graph.edge_index + first_atom, graph.cell_offsets, graph.num_edges))
        first_atom += len(some.atomic_numbers)
    edge_index, cell_offsets, num_edges = zip(*parts, strict=True)
    return PeriodicGraph(torch.cat(edge_index, dim=1), torch.cat(cell_offsets), torch.cat(num_edges))


class CrystalDataModule(pl.LightningDataModule):
    """Training and validation crystals with their edges.

    Args:
        train: the crystals to learn from.
        val: the crystals that choose the model.
        graphs: the edges of both, see `find_graph`.
        batch_size: crystals in a step, over all processes.
        seed: of the shuffling.
        next_step: the step that training stands at.
        last_step: from the step that a round of training starts with to the step before which it ends.
        stops: whether training should end before that.
    """

    def __init__(
        self,
        train: CrystalBatch,
        val: CrystalBatch,
        graphs: tuple[PeriodicGraph, PeriodicGraph],
        *,
        batch_size: int,
        seed: int,
        next_step: Callable[[], int],
        last_step: Callable[[int], int],
        stops: Callable[[], bool],
    ) -> None:
        super().__init__()
        # a list of names would be cut item by item at every step
        self._sets = {
            "train": (train.replace(material_ids=None), graphs[0]),
            "val": (val.replace(material_ids=None), graphs[1]),
        }
        self._batch_size = batch_size
        self._seed = seed
        self._next_step = next_step
        self._last_step = last_step
        self._stops = stops

    def train_dataloader(self) -> StepLoader:
        return StepLoader(
            len(self._sets["train"][0]),
            batch_size=self._batch_size,
            seed=self._seed,
            rank=self._trainer().global_rank,
            world_size=self._trainer().world_size,
            next_step=self._next_step,
            last_step=self._last_step,
            stops=self._stops,
        )

    def val_dataloader(self) -> ValidationLoader:
        return ValidationLoader(
            len(self._sets["val"][0]),
            batch_size=self._batch_size,
            rank=self._trainer().global_rank,
            world_size=self._trainer().world_size,
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> TrainingBatch:
        """The crystals that an `IndexBatch` names; the whole sets move to the device the first time."""
        name = "train" if self._trainer().training else "val"
        crystals, graph = self._sets[name]
        if crystals.lattice.device != device:
            crystals, graph = crystals.to(device), graph.to(device)
            self._sets[name] = (crystals, graph)
        index = batch.chosen.to(device)
        return TrainingBatch(batch.step, crystals.select(index), graph.select(index, crystals.num_atoms))

    def _trainer(self) -> pl.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module is handed to a Lightning Trainer, which asks it for batches")
        return self.trainer
