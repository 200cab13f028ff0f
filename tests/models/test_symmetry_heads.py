"""What z says of symmetry: the loss counted by hand, the search against every group and assignment."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cdvae_kit.crystal.orbits import Orbits
from cdvae_kit.crystal.wyckoff import WyckoffPosition, position_of, wyckoff_positions
from cdvae_kit.models.symmetry_heads import _POSITIONS_WEIGHT as POSITIONS_WEIGHT
from cdvae_kit.models.symmetry_heads import SymmetryHead, _near_counts
from cdvae_kit.seeding import make_generator
from tests.models.crystals import at_a_generic_point

LATENT_DIM, NUM_ELEMENTS = 3, 20
GROUPS = (1, 2, 3, 6, 225)


def tiny_head(groups: tuple[int, ...] = GROUPS, *, seed: int = 1) -> SymmetryHead:
    """It knows all positions of the groups."""
    head = at_a_generic_point(SymmetryHead(LATENT_DIM, 8, NUM_ELEMENTS), seed=seed)
    positions = [position for number in groups for position in wyckoff_positions(number)]
    head.fit(
        Orbits(
            torch.tensor([position.space_group for position in positions]),
            torch.ones(len(positions), dtype=torch.long),
            torch.tensor([position.index for position in positions]),
        )
    )
    return head.eval()


def some_codes(num_crystals: int, seed: int = 2) -> Tensor:
    return torch.randn(num_crystals, LATENT_DIM, generator=make_generator(seed))


def orbits_of(*crystals: tuple[int, str]) -> Orbits:
    """Crystals as (space group, letters of the orbits)."""
    return Orbits(
        torch.tensor([number for number, _ in crystals]),
        torch.tensor([len(letters) for _, letters in crystals]),
        torch.tensor([position_of(number, letter).index for number, letters in crystals for letter in letters]),
    )


def most_orbits(position: WyckoffPosition, atoms: int) -> int:
    most = atoms // position.primitive_multiplicity
    return most if position.num_free else min(most, 1)


def log_p_of_counts(head: SymmetryHead, z: Tensor, element: int, position: WyckoffPosition, atoms: int) -> Tensor:
    """log p of 0, 1, ... orbits of an element with so many atoms on a position, for one crystal: formula by formula."""
    own, code = head.element(torch.tensor(element)), head.code(z)
    scale, shift = head.of_element(torch.cat([own, code, own * code])).chunk(2)
    key = head.position(torch.tensor([position.index]))[0]
    by, to = head.of_position(key).chunk(2)
    mean, log_width = head.out(functional.silu(scale * by + shift + to))
    asked = head.unbind_code(z) * head.unbind_element(torch.tensor(element))
    mean = mean + torch.dot(asked, head.unbind_position(key)) / len(asked) ** 0.5
    counts = torch.arange(most_orbits(position, atoms) + 1)
    logits = -((counts - mean).square()) / (2.0 * torch.exp(log_width.clamp(-3.0, 3.0)).square())
    return logits - torch.logsumexp(logits, 0)


def log_p_of_group(head: SymmetryHead, z: Tensor, number: int) -> float:
    """Among the groups that are known."""
    logits = head.group(z[None])[0]
    return float(logits[number] - torch.logsumexp(logits[head.known_groups], 0))


def log_p_of_positions(head: SymmetryHead, z: Tensor, number: int, orbits: list[tuple[int, str]]) -> float:
    """Of a crystal's orbits, as (element, letter): the sum over its elements and the positions of its group."""
    total = 0.0
    for element in {element for element, _ in orbits}:
        letters = [letter for one, letter in orbits if one == element]
        atoms = sum(position_of(number, letter).primitive_multiplicity for letter in letters)
        for position in wyckoff_positions(number):
            if most_orbits(position, atoms):
                log_p = log_p_of_counts(head, z, element, position, atoms)
                total += float(log_p[letters.count(position.letter)])
    return total


CRYSTALS = (
    (225, [(11, "a"), (17, "b")]),
    (1, [(8, "a"), (8, "a"), (3, "a")]),
    (2, [(8, "i"), (8, "i"), (3, "a"), (8, "h")]),
    (6, [(9, "c"), (9, "a"), (9, "a"), (4, "b")]),
)


def test_the_loss_is_minus_the_log_probability_counted_by_hand() -> None:
    head, z = tiny_head(), some_codes(len(CRYSTALS))
    orbits = orbits_of(*((number, "".join(letter for _, letter in rows)) for number, rows in CRYSTALS))
    elements = torch.tensor([element for _, rows in CRYSTALS for element, _ in rows])
    with torch.no_grad():
        group, positions = head.loss(z, orbits, elements)
        for i, (number, rows) in enumerate(CRYSTALS):
            assert float(group[i]) == pytest.approx(-log_p_of_group(head, z[i], number), rel=1e-4), i
            assert float(positions[i]) == pytest.approx(-log_p_of_positions(head, z[i], number, rows), rel=1e-4), i


def test_the_loss_does_not_know_the_order_of_the_orbits_nor_the_other_crystals() -> None:
    head, z = tiny_head(), some_codes(2)
    with torch.no_grad():
        both = head.loss(z, orbits_of((2, "iiah"), (6, "caab")), torch.tensor([8, 8, 3, 8, 9, 9, 9, 4]))
        alone = head.loss(z[1:], orbits_of((6, "baca")), torch.tensor([4, 9, 9, 9]))
        # the control: other elements on the same positions
        other = head.loss(z[1:], orbits_of((6, "baca")), torch.tensor([9, 4, 9, 9]))
    for whole, one in zip(both, alone, strict=True):
        torch.testing.assert_close(whole[1:], one)
    assert not torch.allclose(other[1], alone[1])


def test_a_group_or_position_that_was_never_seen_counts_for_nothing_in_the_loss() -> None:
    """A validation crystal of such a group has no finite loss, and must not spoil that of the others."""
    head, z = tiny_head(), some_codes(4)
    head.known_positions[position_of(6, "b").index] = False
    orbits = orbits_of((225, "ab"), (227, "a"), (6, "ab"), (2, "ai"))
    elements = torch.tensor([11, 17, 14, 9, 4, 3, 8])
    with torch.no_grad():
        group, positions = head.loss(z, orbits, elements)
        expected = head.loss(z[[0, 3]], orbits_of((225, "ab"), (2, "ai")), torch.tensor([11, 17, 3, 8]))
    assert group[[1, 2]].tolist() == positions[[1, 2]].tolist() == [0.0, 0.0]
    torch.testing.assert_close(group[[0, 3]], expected[0])
    torch.testing.assert_close(positions[[0, 3]], expected[1])


def brute_force(
    head: SymmetryHead, z: Tensor, counts: dict[int, int], groups: tuple[int, ...]
) -> tuple[float, int, list[tuple[int, str]]]:
    """The best of all groups and of all orbits that fit the composition."""
    best: tuple[float, int, list[tuple[int, str]]] | None = None
    for number in groups:
        of_group = log_p_of_group(head, z, number)
        choices = []
        for element, atoms in counts.items():
            positions = [p for p in wyckoff_positions(number) if most_orbits(p, atoms)]
            tables = [log_p_of_counts(head, z, element, p, atoms) for p in positions]
            fitting = []
            for taken in itertools.product(*(range(len(table)) for table in tables)):
                if sum(n * p.primitive_multiplicity for n, p in zip(taken, positions, strict=True)) == atoms:
                    value = sum(float(table[n]) for n, table in zip(taken, tables, strict=True))
                    orbits = [(element, p.letter) for n, p in zip(taken, positions, strict=True) for _ in range(n)]
                    fitting.append((value, orbits))
            choices.append(fitting)
        for choice in itertools.product(*choices):
            orbits = [orbit for _, rows in choice for orbit in rows]
            fixed = [letter for _, letter in orbits if not position_of(number, letter).num_free]
            value = of_group + POSITIONS_WEIGHT * sum(value for value, _ in choice)
            if len(set(fixed)) == len(fixed) and (best is None or value > best[0]):
                best = (value, number, orbits)
    assert best is not None
    return best


def counted(*compositions: dict[int, int]) -> Tensor:
    counts = torch.zeros(len(compositions), NUM_ELEMENTS, dtype=torch.long)
    for row, composition in zip(counts, compositions, strict=True):
        for element, atoms in composition.items():
            row[element - 1] = atoms
    return counts


COMPOSITIONS = ({8: 2}, {8: 1, 3: 1}, {8: 3, 3: 1}, {4: 4}, {9: 2, 4: 2}, {5: 1, 6: 1, 7: 1}, {8: 1}, {8: 2, 3: 1})


@pytest.mark.parametrize("seed", range(3))
def test_the_assignment_is_the_best_of_all_groups_and_positions_that_fit(seed: int) -> None:
    head, z = tiny_head(seed=seed), some_codes(len(COMPOSITIONS), seed=seed)
    with torch.no_grad():
        _, found = head.assign(z, counted(*COMPOSITIONS))
        batch, letters = found.orbits.batch, found.orbits.position.tolist()
        chosen = set()
        for i, composition in enumerate(COMPOSITIONS):
            value, number, orbits = brute_force(head, z[i], composition, GROUPS)
            assert float(found.log_p[i]) == pytest.approx(value, rel=1e-4, abs=1e-5), (seed, i)
            assert int(found.orbits.space_group[i]) == number, (seed, i)
            rows = (batch == i).nonzero().squeeze(-1).tolist()
            ours = [(int(found.elements[row]), letters[row]) for row in rows]
            assert sorted(ours) == sorted((e, position_of(number, letter).index) for e, letter in orbits), (seed, i)
            chosen.add(number)
    assert len(chosen) > 1


def test_the_batch_changes_no_assignment() -> None:
    head, z = tiny_head(), some_codes(len(COMPOSITIONS))
    _, together = head.assign(z, counted(*COMPOSITIONS))
    for i, composition in enumerate(COMPOSITIONS):
        _, alone = head.assign(z[i : i + 1], counted(composition))
        kept = together.orbits.select(torch.tensor([i]))
        assert torch.equal(kept.position, alone.orbits.position), i
        assert torch.equal(kept.space_group, alone.orbits.space_group), i


def only(*groups: int) -> Tensor:
    return torch.isin(torch.arange(231), torch.tensor(groups))


def test_only_groups_that_are_allowed_are_chosen() -> None:
    head, z = tiny_head(), some_codes(3)
    compositions = ({8: 2, 3: 1},) * 3
    for number in (2, 6):
        there, found = head.assign(z, counted(*compositions), allowed=only(number))
        assert bool(there.all())
        assert found.orbits.space_group.tolist() == [number] * 3
        for i, composition in enumerate(compositions):
            value, _, _ = brute_force(head, z[i], composition, (number,))
            assert float(found.log_p[i]) == pytest.approx(value, rel=1e-4)


def test_a_position_that_is_left_out_is_not_used() -> None:
    head, z = tiny_head(), some_codes(4)
    left_out = position_of(2, "i").index
    _, found = head.assign(z, counted({8: 2}).expand(4, -1), allowed=only(2), without=[left_out])
    assert left_out not in found.orbits.position.tolist()
    _, free = head.assign(z, counted({8: 6}).expand(4, -1), allowed=only(2))
    assert left_out in free.orbits.position.tolist()


def test_only_groups_and_positions_that_are_known_are_chosen() -> None:
    head = tiny_head((225,))
    z = some_codes(200)
    _, found = head.assign(z, counted({11: 1, 17: 1}).expand(200, -1))
    assert set(found.orbits.space_group.tolist()) <= {1, 225}
    head.known_positions[position_of(225, "b").index] = False
    _, fewer = head.assign(z, counted({11: 1, 17: 1}).expand(200, -1))
    # one position for two atoms: only P1 is left
    assert set(fewer.orbits.space_group.tolist()) == {1}
    assert 225 in found.orbits.space_group.tolist()


def test_atoms_of_the_assignment_are_those_of_the_composition() -> None:
    head, z = tiny_head(), some_codes(len(COMPOSITIONS))
    _, found = head.assign(z, counted(*COMPOSITIONS))
    numbers = found.elements[found.orbits.of_atom]
    crystal = found.orbits.batch[found.orbits.of_atom]
    assert torch.equal(found.orbits.num_atoms, counted(*COMPOSITIONS).sum(-1))
    rebuilt = torch.zeros(len(z), NUM_ELEMENTS, dtype=torch.long)
    rebuilt.index_put_((crystal, numbers - 1), torch.ones_like(numbers), accumulate=True)
    assert torch.equal(rebuilt, counted(*COMPOSITIONS))


def test_what_fits_nothing_is_said_and_has_no_orbits() -> None:
    counts = counted({11: 1, 17: 1}, {3: 1, 4: 1, 5: 1}, {11: 1, 17: 1})
    there, found = tiny_head().assign(some_codes(3), counts, allowed=only(225))
    assert there.tolist() == [True, False, True]
    assert found.orbits.num_orbits.tolist() == [2, 0, 2]
    there, _ = tiny_head().assign(some_codes(1), counted({14: 2}), allowed=only(227))
    assert there.tolist() == [False]


def test_means_near_the_counts_stay_and_those_far_away_are_brought_near() -> None:
    most = torch.tensor([2, 2, 2, 2, 6])
    mean = torch.tensor([-1.0, 0.3, 3.0, 1e4, -1e4], requires_grad=True)
    near = _near_counts(mean, most)
    torch.testing.assert_close(near[:3], mean[:3])
    assert 3.0 < float(near[3]) < 13.0 and -11.0 < float(near[4]) < -1.0
    near.sum().backward()
    assert mean.grad is not None
    assert bool((mean.grad > 0.0).all())
    steps = _near_counts(torch.linspace(-50.0, 50.0, 1001), torch.full((1001,), 4)).diff()
    assert bool((steps > 0.0).all())
