import copy
import pydoc

import pytest
import torch

from cdvae_kit.crystal import CrystalBatch, concatenate, ragged_index


def two_crystals(**changes: object) -> CrystalBatch:
    fields = {
        "frac_coords": torch.tensor([[0.1, 0.2, 0.3], [0.6, 0.7, 0.8], [0.0, 0.5, 0.25]]),
        "lattice": torch.stack([3.0 * torch.eye(3), 4.0 * torch.eye(3)]),
        "atomic_numbers": torch.tensor([11, 17, 6]),
        "num_atoms": torch.tensor([2, 1]),
    }
    return CrystalBatch(**{**fields, **changes})


def same(first: CrystalBatch, second: CrystalBatch) -> bool:
    fields = ("frac_coords", "lattice", "atomic_numbers", "num_atoms", "batch")
    return (
        all(torch.equal(getattr(first, field), getattr(second, field)) for field in fields)
        and first.material_ids == second.material_ids
        and first.properties.keys() == second.properties.keys()
        and all(torch.equal(first.properties[name], second.properties[name]) for name in first.properties)
    )


FAULTY = {
    "counts as floats": ({"num_atoms": torch.tensor([2.0, 1.0])}, "num_atoms must be a long"),
    "one lattice too few": ({"lattice": torch.eye(3)[None]}, r"lattice must be \(2, 3, 3\)"),
    "two coordinates": ({"frac_coords": torch.zeros(3, 2)}, r"frac_coords must be \(num_atoms, 3\)"),
    "whole coordinates": ({"frac_coords": torch.zeros(3, 3, dtype=torch.long)}, "floating point"),
    "an element too few": ({"atomic_numbers": torch.tensor([1, 2])}, "one an atom"),
    "elements as floats": ({"atomic_numbers": torch.tensor([1.0, 2.0, 3.0])}, "must be a long"),
    "an index from 0": ({"atomic_numbers": torch.tensor([0, 1, 2])}, "hydrogen is 1"),
    "element 119": ({"atomic_numbers": torch.tensor([1, 119, 2])}, r"1\.\.118"),
    "a crystal without atoms": ({"num_atoms": torch.tensor([3, 0])}, "at least one atom"),
    "counts that do not add up": ({"num_atoms": torch.tensor([2, 2])}, "sums to 4 but frac_coords has 3"),
    "a property per atom": ({"properties": {"gap": torch.zeros(3)}}, "'gap' must be"),
    "a name too few": ({"material_ids": ["a"]}, "2 crystals, got 1"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_batch_that_does_not_fit_together_is_refused(name: str) -> None:
    changes, message = FAULTY[name]
    with pytest.raises(ValueError, match=message):
        two_crystals(**changes)


def test_coordinates_are_wrapped_into_the_cell() -> None:
    frac_coords = torch.tensor([[-0.25, 1.0, 2.5], [-1e-9, 0.0, 0.999], [7.0, -3.0, 0.5]])
    wrapped = two_crystals(frac_coords=frac_coords).frac_coords
    assert bool(((wrapped >= 0) & (wrapped < 1)).all())
    torch.testing.assert_close(wrapped[0], torch.tensor([0.75, 0.0, 0.5]))


def test_cart_coords_are_fractions_of_the_rows_of_the_lattice(zoo: CrystalBatch) -> None:
    for k, structure in enumerate(zoo.structures()):
        torch.testing.assert_close(zoo.cart_coords[zoo.batch == k], torch.from_numpy(structure.cart_coords.copy()))


def test_ptr_and_batch_count_the_atoms() -> None:
    assert two_crystals().ptr.tolist() == [0, 2, 3]
    assert two_crystals().batch.tolist() == [0, 0, 1]
    assert len(two_crystals()) == two_crystals().num_crystals == 2


def test_crystals_taken_apart_and_joined_again_are_the_batch(zoo: CrystalBatch) -> None:
    named = zoo.replace(properties={"gap": torch.arange(6.0)}, material_ids=list("abcdef"))
    assert same(concatenate([named.select([k]) for k in range(6)]), named)


def test_selection_orders_and_repeats_and_counts_from_the_end(zoo: CrystalBatch) -> None:
    named = zoo.replace(properties={"gap": torch.arange(6.0)}, material_ids=list("abcdef"))
    chosen = named.select([5, -6, 5])
    assert chosen.material_ids == ["f", "a", "f"]
    assert chosen.properties["gap"].tolist() == [5.0, 0.0, 5.0]
    assert same(chosen, concatenate([named.select([k]) for k in (5, 0, 5)]))


@pytest.mark.parametrize("index", [[6], [-7]])
def test_a_crystal_that_is_not_there_cannot_be_selected(zoo: CrystalBatch, index: list[int]) -> None:
    with pytest.raises(IndexError, match="holds 6 crystals"):
        zoo.select(index)


def test_replacing_leaves_the_batch_as_it_was() -> None:
    batch = two_crystals()
    before = copy.deepcopy(batch)
    changed = batch.replace(atomic_numbers=torch.tensor([1, 1, 1]))
    assert same(batch, before)
    assert changed.atomic_numbers.tolist() == [1, 1, 1]


def test_replacing_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="no field"):
        two_crystals().replace(positions=torch.zeros(3, 3))


def test_copies_and_moves_keep_everything() -> None:
    batch = two_crystals(properties={"gap": torch.tensor([1.0, 2.0])}, material_ids=["a", "b"])
    for again in (copy.copy(batch), copy.deepcopy(batch), batch.clone(), batch.to("cpu")):
        assert same(again, batch)


def test_a_batch_without_names_has_none() -> None:
    assert two_crystals().material_ids is None
    assert two_crystals().select([1]).material_ids is None


def test_a_property_that_one_batch_lacks_is_nan_there() -> None:
    joined = concatenate([two_crystals(properties={"gap": torch.tensor([1.0, 2.0])}), two_crystals()])
    assert joined.properties["gap"].isnan().tolist() == [False, False, True, True]


def test_joining_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        concatenate([])


def test_ragged_index_counts_on_from_each_start() -> None:
    starts, counts = torch.tensor([5, 0, 9, 2]), torch.tensor([3, 0, 1, 2])
    expected = [s + k for s, c in zip(starts.tolist(), counts.tolist(), strict=True) for k in range(c)]
    assert ragged_index(starts, counts).tolist() == expected
    assert ragged_index(starts[:0], counts[:0]).tolist() == []


def test_indices_slices_masks_and_loops_give_crystals() -> None:
    batch = two_crystals(properties={"gap": torch.tensor([1.0, 2.0])}, material_ids=["salt", "carbon"])
    assert same(batch[0], batch.select([0])) and same(batch[-1], batch.select([1]))
    assert same(batch[1:], batch.select([1])) and same(batch[::-1], batch.select([1, 0]))
    assert same(batch[[1, 0]], batch.select([1, 0])) and same(batch[batch.num_atoms == 1], batch.select([1]))
    assert [crystal.material_ids for crystal in batch] == [["salt"], ["carbon"]]
    assert [len(crystal.structures()[0]) for crystal in batch] == [2, 1]
    assert len(batch[2:]) == 0 and list(batch[2:]) == []


def test_what_is_no_crystal_of_the_batch_is_refused() -> None:
    batch = two_crystals()
    for index in (2, -3, [0, 5]):
        with pytest.raises(IndexError, match="2 crystals"):
            batch[index]
    with pytest.raises(IndexError, match="mask of 2 crystals"):
        batch[torch.tensor([True])]
    with pytest.raises(TypeError, match=r"integers, a slice, a mask"):
        batch[1.5]


def test_a_name_still_gives_the_field_of_that_name() -> None:
    batch = two_crystals()
    assert batch["lattice"] is batch.lattice
    with pytest.raises(KeyError):
        batch["nonsense"]


def test_the_repr_says_what_is_in_a_batch() -> None:
    batch = two_crystals(properties={"gap": torch.tensor([1.0, 2.0])})
    assert repr(batch) == "CrystalBatch(2 crystals of 1 to 2 atoms: NaCl, C, properties gap)"
    assert repr(batch[:0]) == "CrystalBatch(no crystals, properties gap)" and repr(CrystalBatch()) == "CrystalBatch()"
    many = concatenate([batch] * 3)
    assert repr(many).endswith("NaCl, C, NaCl, C, ..., properties gap)")
    cell = two_crystals(lattice=torch.stack([torch.diag(torch.tensor([3.0, 3.0, 5.0])), torch.eye(3)]))[0]
    assert repr(cell) == "CrystalBatch(1 crystal: NaCl, 2 atoms, a = b = 3 Å, c = 5 Å, α = β = γ = 90°)"


def test_help_shows_what_the_package_defines_and_objects_keep_the_rest() -> None:
    page = pydoc.plain(pydoc.render_doc(CrystalBatch))
    assert "structures(self)" in page and "metadata" not in page and "coalesce" not in page
    assert "coalesce" in dir(two_crystals()) and "lattice" in dir(two_crystals())
    assert "coalesce" in pydoc.plain(pydoc.render_doc(CrystalBatch.__mro__[1]))
