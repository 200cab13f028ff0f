"""What z says of a crystal at once: its number of atoms, lattice, composition and properties."""

import torch
from torch import Tensor, nn

from cdvae_kit.diffusion.types import draw_elements
from cdvae_kit.models.limits import NUM_ELEMENTS, DecodingLimits
from cdvae_kit.nn.mlp import ResidualMLP, mlp

_CRYSTALS_AT_ONCE = 64
"""Of those with about as many elements that may change, in the search for the most probable composition."""


class CompositionHead(nn.Module):
    """How many atoms of each element, exactly: a distribution over 0, 1, 2, ... for every element.

    The logit of a count c is -(c - m)^2 / (2 s^2): m and s come from z, so that a count never seen with an element in
    training is still close to its neighbours. The most probable composition with a given number of atoms is found
    exactly, by dynamic programming over the elements.
    """

    def __init__(self, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.fraction = ResidualMLP(latent_dim, hidden, NUM_ELEMENTS)
        self.log_width = nn.Linear(latent_dim, NUM_ELEMENTS)
        nn.init.zeros_(self.log_width.weight)
        nn.init.constant_(self.log_width.bias, -0.5)

    def log_probabilities(self, z: Tensor, num_atoms: Tensor) -> Tensor:
        """(num_crystals, num_elements, most atoms + 1): log p of each count; -inf above the crystal's num_atoms."""
        counts = torch.arange(int(num_atoms.max()) + 1, device=z.device, dtype=z.dtype)
        mean = (self.fraction(z) * num_atoms.unsqueeze(-1)).unsqueeze(-1)
        log_width = self.log_width(z).clamp(-3.0, 3.0).unsqueeze(-1)
        logits = -0.5 * (counts - mean).square() * torch.exp(-2.0 * log_width)
        logits = logits.masked_fill(counts > num_atoms.view(-1, 1, 1), -torch.inf)
        return torch.log_softmax(logits, dim=-1)

    def loss(self, z: Tensor, counts: Tensor, num_atoms: Tensor) -> Tensor:
        """Cross entropy of the counts (num_crystals, num_elements) long, summed over elements: (num_crystals,)."""
        log_p = self.log_probabilities(z, num_atoms)
        return -log_p.gather(-1, counts.unsqueeze(-1)).squeeze(-1).sum(-1)

    def fractions(self, z: Tensor, num_atoms: Tensor) -> Tensor:
        """(num_crystals, num_elements): expected share of each element."""
        log_p = self.log_probabilities(z, num_atoms)
        counts = torch.arange(log_p.shape[-1], device=z.device, dtype=z.dtype)
        expected = (log_p.exp() * counts).sum(-1)
        return expected / expected.sum(-1, keepdim=True).clamp_min(1e-6)

    def draw(
        self, z: Tensor, num_atoms: Tensor, uniform: Tensor, known: Tensor, required: Tensor | None = None
    ) -> Tensor:
        """(num_atoms,) long: the most probable composition of each crystal, whatever `uniform` is.

        `known` (num_elements,) long are the elements that may occur, `required` those of which there is at least one
        atom; a crystal needs as many atoms.
        """
        log_p = self._masked(self.log_probabilities(z, num_atoms), known, required)
        return atomic_numbers_from_counts(most_probable_counts(log_p, num_atoms))

    def masked_log_probabilities(
        self, z: Tensor, num_atoms: Tensor, known: Tensor, limits: DecodingLimits | None
    ) -> Tensor:
        """As `log_probabilities`, with -inf for what `known` and `limits` leave out; their composition left aside."""
        required = None if limits is None else limits.required_elements(z.device)
        return self._masked(self.log_probabilities(z, num_atoms), known, required)

    @staticmethod
    def _masked(log_p: Tensor, known: Tensor, required: Tensor | None) -> Tensor:
        if required is not None:
            log_p[:, required - 1, 0] = -torch.inf
        unknown = torch.ones(NUM_ELEMENTS, dtype=torch.bool, device=log_p.device)
        unknown[known - 1] = False
        log_p[:, unknown, 1:] = -torch.inf
        return log_p

    @staticmethod
    def most_probable(log_p: Tensor, num_atoms: Tensor) -> Tensor:
        """(num_crystals, num_elements) long, see `most_probable_counts`."""
        return most_probable_counts(log_p, num_atoms)


class FractionHead(nn.Module):
    """Each atom's element by itself, from one distribution a crystal: the published choice."""

    def __init__(self, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.logits = mlp([latent_dim, hidden, NUM_ELEMENTS])

    def loss(self, z: Tensor, counts: Tensor, num_atoms: Tensor) -> Tensor:
        """Cross entropy of the elements, averaged over atoms: (num_crystals,)."""
        return -(torch.log_softmax(self.logits(z), dim=-1) * counts).sum(-1) / num_atoms

    def fractions(self, z: Tensor, num_atoms: Tensor) -> Tensor:
        """(num_crystals, num_elements): share of each element."""
        return torch.softmax(self.logits(z), dim=-1)

    def draw(
        self, z: Tensor, num_atoms: Tensor, uniform: Tensor, known: Tensor, required: Tensor | None = None
    ) -> Tensor:
        """(num_atoms,) long, drawn at `uniform` (num_atoms,) from the elements `known`.

        Each atom is drawn by itself, so `required` cannot be promised, and is left to whoever looks at the crystals.
        """
        fractions = torch.zeros_like(self.fractions(z, num_atoms))
        fractions[:, known - 1] = self.fractions(z, num_atoms)[:, known - 1]
        return draw_elements(fractions.repeat_interleave(num_atoms, dim=0), uniform)


def most_probable_counts(log_p: Tensor, totals: Tensor) -> Tensor:
    """The counts c_e that maximise sum_e log_p[e, c_e] under sum_e c_e = total, exactly, for each crystal.

    Args:
        log_p: (num_crystals, num_elements, most + 1).
        totals: (num_crystals,) long, at most `most`.

    Returns:
        (num_crystals, num_elements) long.
    """
    # where the best count of each element by itself has the right sum, nothing can be better
    counts = log_p.argmax(-1)
    others = (counts.sum(-1) != totals).nonzero().squeeze(-1)
    if len(others):
        counts[others] = _by_dynamic_programming(log_p[others], totals[others])
    return counts


def _by_dynamic_programming(log_p: Tensor, totals: Tensor) -> Tensor:
    """As `most_probable_counts`, over the elements whose best count by itself can be given up at all.

    What a count costs beside the element's best one is never regained elsewhere. So no count is taken that costs more
    than the sum is mended for by changing a single element.
    """
    best, counts = log_p.max(dim=-1)
    cost = best.unsqueeze(-1) - log_p
    wanted = counts + (totals - counts.sum(-1)).unsqueeze(-1)
    fits = (wanted >= 0) & (wanted < log_p.shape[-1])
    mended = cost.gather(-1, wanted.clamp(0, log_p.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)
    # the same sum in another order must not be taken for a dearer one
    most = mended.masked_fill(~fits, torch.inf).amin(-1) * (1.0 + 1e-6) + 1e-6
    is_open = ((cost <= most.view(-1, 1, 1)).sum(-1) > 1) | (~most.isfinite()).unsqueeze(-1)
    num_open = is_open.sum(-1)
    # those with few open elements need not wait for those with many
    for some in num_open.argsort().split(_CRYSTALS_AT_ONCE):
        rows = is_open[some].long().argsort(dim=-1, descending=True, stable=True)[:, : int(num_open[some].max())]
        # elements beyond those that are open are listed for some crystals, and may be chosen anew like them
        left = totals[some] - counts[some].sum(-1) + counts[some].gather(1, rows).sum(-1)
        listed = log_p[some].gather(1, rows.unsqueeze(-1).expand(-1, -1, log_p.shape[-1]))
        counts[some] = counts[some].scatter(1, rows, _fill(listed, left))
    return counts


def _fill(log_p: Tensor, totals: Tensor) -> Tensor:
    """The counts (num_crystals, num_elements) of the best sum, by dynamic programming over all elements."""
    num_crystals, num_elements, size = log_p.shape
    best = torch.full((num_crystals, size), -torch.inf, dtype=log_p.dtype, device=log_p.device)
    best[:, 0] = 0.0
    # left[n, c] = n - c: what is left for the elements before
    sums = torch.arange(size, device=log_p.device)
    left = sums.unsqueeze(1) - sums.unsqueeze(0)
    impossible = left < 0
    choices = []
    for element in range(num_elements):
        value = best[:, left.clamp_min(0)] + log_p[:, element].unsqueeze(1)
        best, choice = value.masked_fill(impossible, -torch.inf).max(dim=-1)
        choices.append(choice)
    counts = torch.zeros(num_crystals, num_elements, dtype=torch.long, device=log_p.device)
    remaining = totals.clone()
    for element in reversed(range(num_elements)):
        taken = choices[element].gather(1, remaining.unsqueeze(1)).squeeze(1)
        counts[:, element] = taken
        remaining = remaining - taken
    return counts


def element_counts(atomic_numbers: Tensor, batch: Tensor, num_crystals: int) -> Tensor:
    """(num_crystals, num_elements) long: how many atoms of each element; column 0 is hydrogen."""
    if len(atomic_numbers) and int(atomic_numbers.max()) > NUM_ELEMENTS:
        raise ValueError(f"the model knows elements up to Z = {NUM_ELEMENTS}, got Z = {int(atomic_numbers.max())}")
    flat = batch * NUM_ELEMENTS + atomic_numbers - 1
    return torch.bincount(flat, minlength=num_crystals * NUM_ELEMENTS).view(num_crystals, NUM_ELEMENTS)


def atomic_numbers_from_counts(counts: Tensor) -> Tensor:
    """(num_atoms,) long: the elements of each crystal in order of Z, crystal after crystal."""
    elements = torch.arange(1, NUM_ELEMENTS + 1, device=counts.device).repeat(len(counts))
    return torch.repeat_interleave(elements, counts.flatten())
