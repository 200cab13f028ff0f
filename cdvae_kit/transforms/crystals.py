"""Random changes of crystals that keep fractional coordinates, so that edges found before still serve.

The protocol is that of `transforms.base`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import MAX_ATOMIC_NUMBER
from cdvae_kit.crystal.elements import chemical_order
from cdvae_kit.transforms.base import Generator, Params, Transform, normal, per_sample, uniform


@dataclass(frozen=True)
class RandomStrain(Transform[CrystalBatch]):
    """A stretch of each cell along axes of its own: exp(a S + b I), S symmetric, b a change of the size alone.

    The magnitude a of the anisotropic part is itself uniform, so that some crystals stay nearly as they are. The
    exponential keeps every volume positive, whatever the standard deviation.

    Attributes:
        standard_deviation: of the entries of S and of b, without a unit; 0.03 is a strain of some 3 %.

    >>> from cdvae_kit.seeding import make_generator
    >>> salt = CrystalBatch(torch.tensor([[0.0] * 3, [0.5] * 3]), 4.1 * torch.eye(3)[None], torch.tensor([55, 17]),
    ...                     torch.tensor([2]))
    >>> strain = RandomStrain(0.03)
    >>> strain.apply(salt, strain.sample(salt, generator=make_generator(0))).lattice.shape
    torch.Size([1, 3, 3])
    """

    standard_deviation: float
    differentiable = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.standard_deviation < 1.0:
            raise ValueError(f"the standard deviation of a strain must lie in [0, 1), got {self.standard_deviation}")

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        """`deformation` (num_crystals, 3, 3), symmetric, on the device of the batch."""
        lattice = batch.lattice
        share = uniform(generator, len(batch), 1, 1, like=lattice)
        entries = normal(generator, len(batch), 3, 3, like=lattice)
        size = normal(generator, len(batch), 1, 1, like=lattice)
        symmetric = 0.5 * (entries + entries.transpose(-1, -2)) * share
        identity = torch.eye(3, device=lattice.device, dtype=lattice.dtype)
        strength = self.standard_deviation * per_sample(magnitude, len(batch), like=lattice)[:, None, None]
        return {"deformation": torch.linalg.matrix_exp(strength * (symmetric + size * identity))}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        """The batch with every lattice times its deformation."""
        deformation = params["deformation"]
        if deformation.shape != batch.lattice.shape:
            raise ValueError(
                f"expected one deformation a crystal, {tuple(batch.lattice.shape)}, got {tuple(deformation.shape)}"
            )
        return batch.replace(lattice=batch.lattice @ deformation)


@dataclass(frozen=True)
class ElementSubstitution(Transform[CrystalBatch]):
    """Other elements at the same sites: a random permutation of `elements`, for a share of the crystals.

    Sites of one element stay sites of one element. The properties of a crystal whose elements change are no longer
    known and become NaN.

    Attributes:
        probability: the share of crystals that a permutation is drawn for; it may leave their own elements alone.
        elements: atomic numbers that are exchanged; others stay as they are.
    """

    probability: float
    elements: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_substitution(self.probability, self.elements)

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        """`permutation` (num_crystals, num_elements) long, indices into `elements`; the magnitude scales the share."""
        device = batch.num_atoms.device
        order = uniform(generator, len(batch), len(self.elements), like=batch.num_atoms).argsort(dim=1)
        share = self.probability * per_sample(magnitude, len(batch), like=batch.num_atoms)[:, None]
        chosen = uniform(generator, len(batch), 1, like=batch.num_atoms) < share
        return {"permutation": torch.where(chosen, order, torch.arange(len(self.elements), device=device))}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        """The batch with element i of `elements` replaced by element permutation[i]."""
        permutation = params["permutation"]
        if permutation.shape != (len(batch), len(self.elements)):
            raise ValueError(
                f"expected one permutation of {len(self.elements)} elements for each of {len(batch)} crystals, "
                f"got {tuple(permutation.shape)}"
            )
        if not self.elements:
            return batch
        old = batch.atomic_numbers
        elements = torch.tensor(self.elements, device=old.device)
        index = torch.full((MAX_ATOMIC_NUMBER + 1,), -1, dtype=torch.long, device=old.device)
        index[elements] = torch.arange(len(elements), device=old.device)
        known = index[old] >= 0
        new = torch.where(known, elements[permutation[batch.batch, index[old].clamp_min(0)]], old)
        return _with_elements(batch, new)


@dataclass(frozen=True)
class OrderedSubstitution(Transform[CrystalBatch]):
    """Elements near in Pettifor's order in place of a crystal's own, so that their order in the crystal stays.

    Each element of a crystal is exchanged for one of those that are nearer to it, in that order, than to the crystal's
    other elements. The canonical description of a crystal (`crystal.symmetric`), which depends on that order alone,
    therefore stays canonical. Properties of a crystal whose elements change become NaN.

    Attributes:
        probability: the share of crystals that elements are drawn for; what is drawn may be their own.
        elements: atomic numbers of those that may come; others stay as they are.
        reach: largest distance in Pettifor's order, counted in `elements`.
    """

    probability: float
    elements: tuple[int, ...]
    reach: int = 12

    def __post_init__(self) -> None:
        _check_substitution(self.probability, self.elements)
        if self.reach < 1:
            raise ValueError(f"the reach of a substitution must be at least 1, got {self.reach}")

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        """`draws` (num_crystals, num_elements) in [0, 1), and `chosen` (num_crystals,) bool."""
        draws = uniform(generator, len(batch), len(self.elements), like=batch.lattice)
        share = self.probability * per_sample(magnitude, len(batch), like=batch.lattice)
        return {"draws": draws, "chosen": uniform(generator, len(batch), like=batch.lattice) < share}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        """The batch with each element of a chosen crystal exchanged for one of its neighbours."""
        draws, chosen = params["draws"], params["chosen"]
        if draws.shape != (len(batch), len(self.elements)):
            raise ValueError(
                f"expected {len(self.elements)} draws for each of {len(batch)} crystals, got {tuple(draws.shape)}"
            )
        if not self.elements:
            return batch
        old = batch.atomic_numbers
        elements = torch.tensor(self.elements, device=old.device)
        elements = elements[chemical_order(old.device)[elements].argsort()]
        rank = torch.full((MAX_ATOMIC_NUMBER + 1,), -1, dtype=torch.long, device=old.device)
        rank[elements] = torch.arange(len(elements), device=old.device)
        own = rank[old]
        known = own >= 0
        present = torch.zeros_like(draws, dtype=torch.bool)
        present[batch.batch[known], own[known]] = True
        new_rank = self._drawn_ranks(present, draws)
        new = elements[new_rank[batch.batch, own.clamp_min(0)]]
        new = torch.where(known & chosen[batch.batch], new, old)
        return _with_elements(batch, new)

    def _drawn_ranks(self, present: Tensor, draws: Tensor) -> Tensor:
        """(num_crystals, num_elements) long: where each present element goes; between the middles to its neighbours."""
        size = present.shape[1]
        here = torch.arange(size, device=present.device).expand_as(present)
        before = torch.where(present, here, -size).cummax(1).values
        after = torch.where(present, here, 2 * size).flip(1).cummin(1).values.flip(1)
        before = torch.nn.functional.pad(before, (1, 0), value=-size)[:, :-1]
        after = torch.nn.functional.pad(after, (0, 1), value=2 * size)[:, 1:]
        first = torch.maximum((before + here).div(2, rounding_mode="floor") + 1, here - self.reach).clamp_min(0)
        last = torch.minimum((here + after).div(2, rounding_mode="floor"), here + self.reach).clamp_max(size - 1)
        # a draw just below 1 may round up
        return (first + (draws * (last - first + 1)).long()).minimum(last)


def _check_substitution(probability: float, elements: tuple[int, ...]) -> None:
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"the probability of a substitution must lie in [0, 1], got {probability}")
    if len(set(elements)) != len(elements) or not all(1 <= number <= MAX_ATOMIC_NUMBER for number in elements):
        raise ValueError(f"elements must be distinct atomic numbers in 1..{MAX_ATOMIC_NUMBER}, got {elements}")


def _with_elements(batch: CrystalBatch, atomic_numbers: Tensor) -> CrystalBatch:
    """The batch with other elements; properties of crystals that they change are no longer known."""
    other = (atomic_numbers != batch.atomic_numbers).long()
    changed = scatter(other, batch.batch, dim=0, dim_size=len(batch), reduce="sum") > 0
    properties = {name: values.masked_fill(changed, torch.nan) for name, values in batch.properties.items()}
    return batch.replace(atomic_numbers=atomic_numbers, properties=properties)


@dataclass(frozen=True)
class ElementMask(Transform[CrystalBatch]):
    """Hides elements behind one that says nothing, all atoms of an element together; `hidden` (b, 119) bool.

    Whole elements, so that what is hidden cannot be read off another atom, and so that a supercell is masked as its
    cell is. The properties stay: they are those of the crystal behind the mask.

    Attributes:
        probability: of each element of a crystal to be hidden, scaled by the magnitude.
        stand_in: atomic number of the element that says nothing; the default is in no crystal.
    """

    probability: float
    stand_in: int = MAX_ATOMIC_NUMBER

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"the probability of a mask must lie in [0, 1], got {self.probability}")
        if not 1 <= self.stand_in <= MAX_ATOMIC_NUMBER:
            raise ValueError(f"the element that says nothing must be 1..{MAX_ATOMIC_NUMBER}, got {self.stand_in}")

    def sample(self, batch: CrystalBatch, *, magnitude: Tensor | float = 1.0, generator: Generator) -> Params:
        share = self.probability * per_sample(magnitude, len(batch), like=batch.lattice)[:, None]
        return {"hidden": uniform(generator, len(batch), MAX_ATOMIC_NUMBER + 1, like=batch.lattice) < share}

    def apply(self, batch: CrystalBatch, params: Params) -> CrystalBatch:
        hidden = params["hidden"][batch.batch, batch.atomic_numbers]
        return batch.replace(atomic_numbers=batch.atomic_numbers.masked_fill(hidden, self.stand_in))
