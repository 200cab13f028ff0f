"""What z says of a crystal's symmetry: its space group, and how many orbits of each element stand on each position.

The two are read together: of all groups and assignments that the composition allows, the most probable pair, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.utils import scatter

from cdvae_kit.crystal.batch import ragged_index
from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.wyckoff import NUM_GROUPS, NUM_POSITIONS, wyckoff_table
from cdvae_kit.models.assignment import most_probable_assignment
from cdvae_kit.models.positions import PositionEmbedding
from cdvae_kit.nn.mlp import ResidualMLP, dropout, mlp

_POSITIONS_WEIGHT = 0.01
"""Weight of log p(positions) beside log p(group) where both are chosen together. The positions are learnt less well,
and their head is too sure of itself on crystals that it has not seen: with much weight it turns away every group but
P1, which has one position. On 500 validation crystals of MP-20 the group is right for 96.8 % with 0.1 and 97.0 % with
0.03 and less; of 500 samples 9.6 % are of P1 with 0.1, 3.0 % with 0.03, 1.8 % with 0.01 (1.7 % of the data)."""
_DROPOUT = 0.2
"""In training, of the features that are not linear in z: they learn compositions by heart."""
_GROUPS_AT_ONCE = 6
"""Groups of a crystal whose assignments are looked at together, the most probable first."""
P1 = 1


@dataclass(frozen=True)
class Assignment:
    """Orbits that fit the composition, and how probable they are.

    Attributes:
        orbits: groups and positions.
        elements: (num_orbits,) long.
        log_p: (num_crystals,) log p(group | z) + 0.01 log p(positions | group, composition, z), up to the
            normalisation of the latter over what is possible.
    """

    orbits: Orbits
    elements: Tensor
    log_p: Tensor


def _near_counts(mean: Tensor, most: Tensor) -> Tensor:
    """The same from -1 to most + 1; beyond, as the logarithm.

    A mean far beyond all counts, with a width as large, says "none" or "all" and nothing between: training that was
    once thrown there did not come back.
    """
    below, above = (-1.0 - mean).clamp_min(0.0), (mean - most - 1.0).clamp_min(0.0)
    within = torch.minimum(mean.clamp_min(-1.0), (most + 1.0).to(mean.dtype))
    return within - torch.log1p(below) + torch.log1p(above)


class SymmetryHead(nn.Module):
    """Space group and Wyckoff positions from z.

    The logit of c orbits of an element on a position is -(c - m)^2 / (2 s^2), with m and s from z, element and
    position; see `CompositionHead`. Only groups and positions of the training crystals are ever chosen, and P1.
    """

    known_groups: Tensor
    known_positions: Tensor

    def __init__(self, latent_dim: int, hidden: int, num_elements: int) -> None:
        super().__init__()
        self.group = ResidualMLP(latent_dim, hidden, NUM_GROUPS + 1)
        self.element = nn.Embedding(num_elements + 1, hidden)
        self.code = nn.Linear(latent_dim, hidden)
        self.position = PositionEmbedding(hidden)
        self.of_element = mlp([3 * hidden, hidden, 2 * hidden])
        self.of_position = nn.Linear(hidden, 2 * hidden)
        self.out = mlp([hidden, hidden, 2])
        # z as a sum of element times position, asked for one pair: linear in z, so that it holds for pairs never seen
        self.unbind_code = nn.Linear(latent_dim, hidden)
        self.unbind_element = nn.Embedding(num_elements + 1, hidden)
        self.unbind_position = nn.Linear(hidden, hidden, bias=False)
        self.register_buffer("known_groups", torch.zeros(NUM_GROUPS + 1, dtype=torch.bool))
        self.register_buffer("known_positions", torch.zeros(NUM_POSITIONS, dtype=torch.bool))
        self.known_groups[P1] = True
        self.known_positions[0] = True

    def fit(self, orbits: Orbits) -> None:
        """Takes the groups and positions that occur."""
        self.known_groups[orbits.space_group.to(self.known_groups.device)] = True
        self.known_positions[orbits.position.to(self.known_positions.device)] = True

    def group_log_probabilities(self, z: Tensor) -> Tensor:
        """(num_crystals, 231): log p of each space group, -inf for those not known."""
        logits = self.group(z).masked_fill(~self.known_groups, -torch.inf)
        return torch.log_softmax(logits, dim=-1)

    def _features_of_element(
        self, z: Tensor, crystal: Tensor, elements: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """(num_rows, 3 hidden) of one row for each element of a crystal."""
        code = self.code(z).index_select(0, crystal)
        own = self.element(elements)
        features = self.of_element(torch.cat([own, code, own * code], dim=-1))
        if generator is not None:
            features = dropout(features, _DROPOUT, generator)
        asked = self.unbind_code(z).index_select(0, crystal) * self.unbind_element(elements)
        return torch.cat([features, asked], dim=-1)

    def _count_log_probabilities(self, of_element: Tensor, position: Tensor, most: Tensor) -> Tensor:
        """(num_rows, largest most + 1): log p of 0, 1, ... orbits, -inf above `most`; a row an element and position."""
        scale, shift, asked = of_element.chunk(3, dim=-1)
        # a batch has the same positions many times
        unique, inverse = torch.unique(position, return_inverse=True)
        key = self.position(unique)
        by, to = self.of_position(key).index_select(0, inverse).chunk(2, dim=-1)
        mean, log_width = self.out(functional.silu(scale * by + shift + to)).unbind(-1)
        answer = (asked * self.unbind_position(key).index_select(0, inverse)).sum(-1)
        mean = _near_counts(mean + answer / math.sqrt(asked.shape[-1]), most)
        count = torch.arange(int(most.max()) + 1 if len(most) else 1, device=most.device, dtype=mean.dtype)
        width = torch.exp(-2.0 * log_width.clamp(-3.0, 3.0)).unsqueeze(-1)
        logits = -0.5 * (count - mean.unsqueeze(-1)).square() * width
        return torch.log_softmax(logits.masked_fill(count > most.unsqueeze(-1), -torch.inf), dim=-1)

    def _rows(self, space_group: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For elements (rows) with `counts` atoms in groups: the element row, position and most orbits of each pair.

        Positions too large for the count are left out.
        """
        device = space_group.device
        groups = wyckoff_table(device).space_group
        known = self.known_positions.to(device).nonzero().squeeze(-1)
        of_known = groups.index_select(0, known)
        first = torch.searchsorted(of_known, space_group)
        after = torch.searchsorted(of_known, space_group, right=True)
        element = torch.repeat_interleave(torch.arange(len(space_group), device=device), after - first)
        position = known.index_select(0, ragged_index(first, after - first))
        multiplicity = wyckoff_table(device).multiplicity.index_select(0, position)
        most = counts.index_select(0, element) // multiplicity
        is_free = wyckoff_table(device).is_free.index_select(0, position).any(-1)
        most = torch.where(is_free, most, most.clamp_max(1))
        keep = most > 0
        return element[keep], position[keep], most[keep]

    def loss(
        self, z: Tensor, orbits: Orbits, elements: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cross entropies (num_crystals,) of the group, and of the counts on positions summed over them.

        0 for crystals with a group or position that is not known: they have no finite one. In training,
        randomness comes from the generator; without one nothing is dropped.
        """
        size = len(z)
        seen = self.known_positions.index_select(0, orbits.position)
        unseen = scatter((~seen).long(), orbits.batch, dim=0, dim_size=size, reduce="sum")
        is_known = self.known_groups.index_select(0, orbits.space_group) & (unseen == 0)
        of_group = -self.group_log_probabilities(z).gather(-1, orbits.space_group.unsqueeze(-1)).squeeze(-1)
        of_group = torch.where(is_known, of_group, 0.0)
        num_elements = self.element.num_embeddings
        key = orbits.batch * num_elements + elements
        present, row_of_orbit = torch.unique(key, return_inverse=True)
        crystal, element = present // num_elements, present % num_elements
        atoms = scatter(orbits.multiplicity, row_of_orbit, dim=0, dim_size=len(present), reduce="sum")
        row, position, most = self._rows(orbits.space_group.index_select(0, crystal), atoms)
        # how many orbits of the element stand there; both lists of keys are sorted
        pair = row * NUM_POSITIONS + position
        stands = (row_of_orbit * NUM_POSITIONS + orbits.position)[seen]
        taken = torch.bincount(torch.searchsorted(pair, stands), minlength=len(pair))
        features = self._features_of_element(z, crystal, element, generator if self.training else None)
        log_p = self._count_log_probabilities(features.index_select(0, row), position, most)
        error = -log_p.gather(-1, taken.unsqueeze(-1)).squeeze(-1)
        into = crystal.index_select(0, row)
        of_positions = scatter(error, into, dim=0, dim_size=size, reduce="sum")
        return of_group, torch.where(is_known, of_positions, 0.0)

    @torch.no_grad()
    def log_probability(self, z: Tensor, orbits: Orbits, elements: Tensor) -> Tensor:
        """(num_crystals,) how probable given orbits are, as `Assignment.log_p`."""
        of_group, of_positions = self.loss(z, orbits, elements)
        return -of_group - _POSITIONS_WEIGHT * of_positions

    @torch.no_grad()
    def assign(
        self, z: Tensor, counts: Tensor, *, allowed: Tensor | None = None, without: Sequence[int] = ()
    ) -> tuple[Tensor, Assignment]:
        """The most probable group and positions of each crystal, of all that its composition allows.

        Groups are gone through by falling probability until none that is left could still win: log p(positions) is
        never above 0.

        Args:
            z: (num_crystals, latent_dim).
            counts: (num_crystals, num_elements) long, atoms of each element in the primitive cell, hydrogen first.
            allowed: (231,) bool, the groups that may be chosen; all that are known unless given.
            without: positions that are not to be used.

        Returns:
            (num_crystals,) bool, for which crystals there is an assignment, and the assignments; the others have no
            orbits.
        """
        log_p = self.group_log_probabilities(z)
        if allowed is not None:
            log_p = log_p.masked_fill(~allowed, -torch.inf)
        best: list[_Found | None] = [None] * len(z)
        order = log_p.argsort(dim=-1, descending=True)
        ranked = log_p.gather(-1, order).cpu().numpy()
        groups = order.cpu().numpy()
        open_crystals = list(range(len(z)))
        start = 0
        while open_crystals:
            # the first is enough for most
            after = start + (_GROUPS_AT_ONCE if start else 1)
            tried = [
                (i, int(groups[i, k]), float(ranked[i, k]))
                for i in open_crystals
                for k in range(start, min(after, NUM_GROUPS + 1))
                if np.isfinite(ranked[i, k]) and not _is_beaten(best[i], float(ranked[i, k]))
            ]
            if tried:
                self._try(tried, z, counts, best, without)
            open_crystals = [
                i
                for i in open_crystals
                if after <= NUM_GROUPS
                and np.isfinite(ranked[i, after])
                and not _is_beaten(best[i], float(ranked[i, after]))
            ]
            start = after
        return _collect(best, z.device)

    def _try(
        self,
        tried: Sequence[tuple[int, int, float]],
        z: Tensor,
        counts: Tensor,
        best: list[_Found | None],
        without: Sequence[int],
    ) -> None:
        """Looks for the best assignment of each (crystal, group, log p of the group), and keeps it in `best`."""
        device = z.device
        crystals = torch.tensor([i for i, _, _ in tried], device=device)
        rows, element = counts.index_select(0, crystals).nonzero(as_tuple=True)
        atoms = counts.index_select(0, crystals)[rows, element]
        groups = torch.tensor([group for _, group, _ in tried], device=device).index_select(0, rows)
        row, position, most = self._rows(groups, atoms)
        features = self._features_of_element(z, crystals.index_select(0, rows), element + 1)
        log_p = self._count_log_probabilities(features.index_select(0, row), position, most).cpu().double().numpy()
        of_trial = rows.index_select(0, row).cpu().numpy()
        starts = np.searchsorted(of_trial, np.arange(len(tried) + 1))
        row_starts = np.searchsorted(rows.cpu().numpy(), np.arange(len(tried) + 1))
        row_array, position_array = row.cpu().numpy(), position.cpu().numpy()
        elements, atoms_array = (element + 1).cpu().numpy(), atoms.cpu().numpy()
        table = wyckoff_table()
        multiplicity, is_free = table.multiplicity.numpy(), table.is_free.any(-1).numpy()
        log_p[np.isin(position_array, without), 1:] = -np.inf
        for trial, (crystal, group, of_group) in enumerate(tried):
            if _is_beaten(best[crystal], of_group):
                continue
            inside = slice(starts[trial], starts[trial + 1])
            here = slice(row_starts[trial], row_starts[trial + 1])
            positions, index = np.unique(position_array[inside], return_inverse=True)
            if not len(positions):
                continue
            dense = np.full((len(atoms_array[here]), len(positions), log_p.shape[1]), -np.inf)
            dense[:, :, 0] = 0.0
            dense[row_array[inside] - here.start, index] = log_p[inside]
            found = most_probable_assignment(dense, multiplicity[positions], is_free[positions], atoms_array[here])
            if found is None:
                continue
            together = of_group + _POSITIONS_WEIGHT * found[0]
            if not _is_beaten(best[crystal], together):
                best[crystal] = _Found(group, together, positions, elements[here], found[1])


@dataclass(frozen=True)
class _Found:
    group: int
    log_p: float
    positions: np.ndarray
    elements: np.ndarray
    counts: np.ndarray  # (num_elements, num_positions)


def _is_beaten(found: _Found | None, bound: float) -> bool:
    return found is not None and found.log_p >= bound


def _collect(best: Sequence[_Found | None], device: torch.device) -> tuple[Tensor, Assignment]:
    positions, elements, sizes = [], [], []
    nothing = np.zeros(0, dtype=np.int64)
    for found in best:
        if found is None:
            positions.append(nothing)
            elements.append(nothing)
            sizes.append(0)
            continue
        element, position = np.nonzero(found.counts)
        times = found.counts[element, position]
        positions.append(np.repeat(found.positions[position], times))
        elements.append(np.repeat(found.elements[element], times))
        sizes.append(int(times.sum()))
    orbits = Orbits(
        torch.tensor([P1 if found is None else found.group for found in best]),
        torch.tensor(sizes),
        torch.as_tensor(np.concatenate(positions)),
    ).to(device)
    log_p = torch.tensor([-np.inf if found is None else found.log_p for found in best], device=device)
    there = torch.tensor([found is not None for found in best], device=device)
    return there, Assignment(orbits, torch.as_tensor(np.concatenate(elements)).to(device), log_p)
