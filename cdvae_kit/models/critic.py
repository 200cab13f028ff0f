"""Which compositions the prior draws too often: a classifier between real compositions and those read from its codes.

The odds of the best classifier of two samples are the ratio of their densities. Codes whose composition is accepted
with a probability in proportion to this ratio come in the proportions of the real ones, as far as the classifier tells
them apart (discriminator rejection sampling: Azadi et al., arXiv 1810.06758). What a flow over codes learns last
is whether charges balance. The critic is told how nearly they do by the known oxidation states; how much this counts it
learns from the real compositions, of which many are no salts.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cdvae_kit.models.limits import NUM_ELEMENTS
from cdvae_kit.nn.mlp import dropout, mlp

_ELEMENT_WIDTH = 64
NUM_FACTS = 4
"""Numbers of `charge_facts`."""
_MANY_CHOICES = 5000
_DROPOUT = 0.1
_MOST_ELEMENTS, _MOST_ATOMS = 8, 64
"""Larger numbers are calibrated together."""
_NUM_COLUMNS = 18
_NUM_KINDS = 4 * (_NUM_COLUMNS + 1)
_CALIBRATION_ROUNDS, _CALIBRATION_STEP, _LARGEST_OFFSET = 50, 0.5, 4.0


def charge_facts(counts: Tensor) -> Tensor:
    """(num_crystals, NUM_FACTS) of counts (num_crystals, num_elements): what oxidation states say of a composition.

    The least net charge an atom by the common states, and by all known ones; whether some neutral choice has every
    cation below every anion in electronegativity; whether all elements are metals. One charge an element.

    >>> salt = torch.zeros(1, NUM_ELEMENTS, dtype=torch.long)
    >>> salt[0, 10], salt[0, 16] = 1, 1
    >>> charge_facts(salt).tolist()
    [[0.0, 0.0, 1.0, 0.0]]
    """
    rows = []
    for row in counts.cpu().numpy():
        elements = np.flatnonzero(row)
        divisor = np.gcd.reduce(row[elements]) if len(elements) else 1
        rows.append(_facts_of(tuple(zip((elements + 1).tolist(), (row[elements] // divisor).tolist(), strict=True))))
    return torch.tensor(rows, device=counts.device).view(-1, NUM_FACTS)


@lru_cache(maxsize=200_000)
def _facts_of(composition: tuple[tuple[int, int], ...]) -> tuple[float, ...]:
    num_atoms = sum(count for _, count in composition)
    known = [_element_facts(number) for number, _ in composition]
    is_metal = all(facts[3] for facts in known)
    if len(composition) < 2:
        return 0.0, 0.0, 1.0, float(is_metal)
    least = []
    for kind in (0, 1):
        # sets of a few dozen numbers: faster than arrays
        charges = {0.0}
        for (_, count), facts in zip(composition, known, strict=True):
            states = facts[0] if kind == 0 else facts[1]
            charges = {charge + count * state for charge in charges for state in states}
        least.append(min(min(map(abs, charges)) / num_atoms, 1.0))
    return least[0], least[1], float(least[1] == 0.0 and _is_ordered(composition, known)), float(is_metal)


@lru_cache(maxsize=1)
def _anion_table() -> tuple[Tensor, Tensor]:
    """(num_elements,) each: electronegativity, and where an element stands if it is the anion: its column of the table
    of elements and whether it is of the first two rows; 0 for metals."""
    from pymatgen.core import Element

    elements = [Element.from_Z(number) for number in range(1, NUM_ELEMENTS + 1)]
    anions = [0 if element.is_metal else 2 * element.group + int(element.row <= 2) for element in elements]
    values = [_element_facts(element.Z)[2] for element in elements]
    return torch.tensor(values), torch.tensor(anions)


def chemical_kinds(counts: Tensor, facts: Tensor) -> Tensor:
    """(num_crystals,) long of counts (num_crystals, num_elements): which anion compositions have, and if they balance.

    The anion is the most electronegative element, by column of the table of elements and whether it is of the first two
    rows (oxides and sulphides differ); where it is a metal there is none. A composition balances where some neutral
    choice of charges has every cation below every anion in electronegativity, or all of its elements are metals.

    Args:
        counts: (num_crystals, num_elements) long.
        facts: (num_crystals, NUM_FACTS) of `charge_facts`.
    """
    electronegativity, anions = (table.to(counts.device) for table in _anion_table())
    anion = torch.where(counts > 0, electronegativity, -torch.inf).argmax(-1)
    balances = (facts[:, 2:] > 0.0).any(-1)
    return 2 * anions.index_select(0, anion) + balances.long()


_ElementFacts = tuple[tuple[float, ...], tuple[float, ...], float, bool]


def _is_ordered(composition: tuple[tuple[int, int], ...], known: list[_ElementFacts]) -> bool:
    """Whether some neutral choice of charges puts cations below anions in electronegativity."""
    charge, cation, anion = np.zeros(1), np.full(1, -np.inf), np.full(1, np.inf)
    for (_, count), (_, states, electronegativity, _) in zip(composition, known, strict=True):
        own = np.array(states)
        charge = (charge[:, None] + count * own).ravel()
        cation = np.maximum(cation[:, None], np.where(own > 0, electronegativity, -np.inf)).ravel()
        anion = np.minimum(anion[:, None], np.where(own < 0, electronegativity, np.inf)).ravel()
        fits = cation < anion
        charge, cation, anion = charge[fits], cation[fits], anion[fits]
        if len(charge) > _MANY_CHOICES:
            # of choices that are alike one will do
            charge, cation, anion = np.unique(np.stack([charge, cation, anion]), axis=1)
        if not len(charge):
            return False
    return bool((charge == 0.0).any())


@lru_cache(maxsize=NUM_ELEMENTS)
def _element_facts(number: int) -> _ElementFacts:
    """Common and all known oxidation states (0 where there are none), electronegativity, whether it is a metal."""
    from pymatgen.core import Element

    element = Element.from_Z(number)
    all_states = tuple(map(float, element.oxidation_states)) or (0.0,)
    common = tuple(map(float, element.common_oxidation_states)) or all_states
    # where there is none, as of helium, it stands neither below nor above
    value = float(element.data.get("X") or 2.2)
    return common, all_states, value, bool(element.is_metal)


class CompositionCritic(nn.Module):
    """Log-odds that a composition is a real one: features of elements and counts, summed, then a function of the sums
    and of how nearly the charges balance.

    >>> critic = CompositionCritic(8)
    >>> counts = torch.zeros(1, NUM_ELEMENTS, dtype=torch.long)
    >>> counts[0, 10], counts[0, 16] = 1, 1
    >>> critic(counts).tolist()  # before it is fitted all are as probable
    [0.0]
    """

    ceiling = 3.0
    """A composition that is so many times more frequent among real ones is always accepted."""
    of_num_elements: Tensor
    of_num_atoms: Tensor
    of_kind: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.register_buffer("of_num_elements", torch.zeros(_MOST_ELEMENTS + 1))
        self.register_buffer("of_num_atoms", torch.zeros(_MOST_ATOMS + 1))
        self.register_buffer("of_kind", torch.zeros(_NUM_KINDS))
        self.element = nn.Embedding(NUM_ELEMENTS, _ELEMENT_WIDTH)
        self.of_element = mlp([_ELEMENT_WIDTH + 2, hidden, hidden])
        self.out = mlp([hidden + 2 * _ELEMENT_WIDTH + 1 + NUM_FACTS, hidden, hidden, 1])
        last = self.out[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # models of before kinds were calibrated favour none
        state_dict.setdefault(f"{prefix}of_kind", torch.zeros(_NUM_KINDS))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, counts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(num_crystals,) of counts (num_crystals, num_elements) long, hydrogen first; in training with a generator."""
        return self.log_odds(counts, charge_facts(counts), generator)

    def log_odds(self, counts: Tensor, facts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As `forward`, for compositions whose `charge_facts` (num_crystals, NUM_FACTS) are known."""
        total = counts.sum(1, keepdim=True).clamp_min(1).to(self.element.weight.dtype)
        row, element = counts.nonzero(as_tuple=True)
        count = counts[row, element].unsqueeze(-1).to(total)
        share = count / total.index_select(0, row)
        own = self.element(element)
        features = self.of_element(torch.cat([own, share, count.log()], dim=-1))

        def summed(values: Tensor) -> Tensor:
            return values.new_zeros(len(counts), values.shape[1]).index_add(0, row, values)

        balance = summed(share * own)
        pooled = torch.cat([summed(features), balance, balance.abs(), total.log(), facts], dim=-1)
        if generator is not None:
            pooled = dropout(pooled, _DROPOUT, generator)
        return self.out(pooled).squeeze(-1)

    def acceptance(self, counts: Tensor) -> Tensor:
        """(num_crystals,) with what probability a composition that the prior draws is accepted."""
        facts = charge_facts(counts)
        return self._acceptance(self.log_odds(counts, facts), _classes(counts, facts))

    def _acceptance(self, logits: Tensor, classes: tuple[Tensor, ...]) -> Tensor:
        for table, rows in zip(self._tables(), classes, strict=True):
            logits = logits + table.index_select(0, rows)
        return (logits.exp() / self.ceiling).clamp_max(1.0)

    def _tables(self) -> tuple[Tensor, ...]:
        return self.of_num_elements, self.of_num_atoms, self.of_kind

    def accepts(self, counts: Tensor, uniform: Tensor) -> Tensor:
        """(num_crystals,) bool, for draws `uniform` (num_crystals,) from [0, 1)."""
        return uniform < self.acceptance(counts)

    @torch.no_grad()
    def calibrate(self, real: Tensor, drawn: Tensor) -> None:
        """Sets how much each number of elements and of atoms and each `chemical_kinds` is favoured, so that what is
        accepted has those of `real`.

        The ceiling cuts off what is much more frequent among real compositions, and most so among large ones, of which
        few that are drawn are any good: without this, small compositions are accepted too often, and salts too seldom
        that balance. The three are matched in turn (iterative proportional fitting: Deming and Stephan, Ann. Math.
        Stat. 11, 427 (1940)), and as many compositions are accepted in all as before.

        Args:
            real: (num_real, num_elements) long, compositions to be like.
            drawn: (num_drawn, num_elements) long, compositions of the prior.
        """
        facts = charge_facts(drawn)
        logits = self.log_odds(drawn, facts)
        of_real, of_drawn = _classes(real, charge_facts(real)), _classes(drawn, facts)
        for table in self._tables():
            table.zero_()
        before = float(self._acceptance(logits, of_drawn).mean())
        for _ in range(_CALIBRATION_ROUNDS):
            for table, real_rows, drawn_rows in zip(self._tables(), of_real, of_drawn, strict=True):
                wanted = torch.bincount(real_rows, minlength=len(table)).to(logits) / len(real)
                accepted = self._acceptance(logits, of_drawn)
                found = torch.bincount(drawn_rows, accepted, minlength=len(table)).to(logits) / accepted.sum()
                # what no real composition has falls to the least; of what is never drawn nothing can be said
                step = torch.where(found > 0.0, (wanted / found.clamp_min(1e-12)).log(), 0.0)
                table += step.clamp(-_CALIBRATION_STEP, _CALIBRATION_STEP)
                table.clamp_(-_LARGEST_OFFSET, _LARGEST_OFFSET)
            accepted = self._acceptance(logits, of_drawn)
            self.of_num_elements += math.log(before) - math.log(float(accepted.mean()))


def _classes(counts: Tensor, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(num_crystals,) long each: numbers of elements and of atoms, the many taken together, and chemical kinds."""
    sizes = (counts > 0).sum(-1).clamp_max(_MOST_ELEMENTS), counts.sum(-1).clamp_max(_MOST_ATOMS)
    return *sizes, chemical_kinds(counts, facts)
