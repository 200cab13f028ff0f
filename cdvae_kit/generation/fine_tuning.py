"""A trained model goes on with a table of one's own: what is taken over, what starts anew, and what is told of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.models import CDVAE, pretrained
from cdvae_kit.models.condition_kinds import build_conditions
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.models.limits import NUM_ELEMENTS

logger = logging.getLogger(__name__)

FINE_TUNING: Mapping[str, Any] = {
    "max_steps": 4000,
    # a tenth of what the weights were trained with
    "learning_rate": 2e-4,
    "warmup_steps": 50,
    "check_every": 100,
    # validations, so that training ends 1,000 steps after the best
    "patience": 10,
    "prior_steps": 2000,
}
"""`TrainingConfig` of a model that goes on; what is not named has its default."""


def settings_of(init: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables `model` and `training` to go on with: the model's own, and `FINE_TUNING`."""
    config, _, _ = pretrained.load(init)
    return {"model": config.model_dump(mode="json"), "training": dict(FINE_TUNING)}


def properties_of(
    inherited: Sequence[str], wanted: Sequence[str], crystals: CrystalBatch, init: str | os.PathLike[str]
) -> tuple[str, ...]:
    """The properties of the model to be: those of the old one that the crystals have, and those that are wanted.

    Args:
        inherited: of the old model; one that the crystals have no two values of is dropped, and told.
        wanted: columns of the crystals.
        crystals: the training set.
        init: what to call the old model.

    Raises:
        ValueError: a wanted property of which there are no two values.
    """
    there = {name for name, values in crystals.properties.items() if int(values.isfinite().sum()) >= 2}
    if missing := [name for name in wanted if name not in there]:
        others = ", ".join(sorted(there)) or "no property"
        raise ValueError(f"the data have no two values of {', '.join(missing)}; they have {others}")
    if dropped := [name for name in inherited if name not in there and name not in wanted]:
        logger.warning(
            "%s knows %s, of which these data say nothing: the new model will not know it",
            _name(init),
            ", ".join(dropped),
        )
    return tuple(dict.fromkeys([*(name for name in inherited if name in there), *wanted]))


@dataclass(frozen=True)
class NewElement:
    """An element that the old model has never seen.

    Attributes:
        number: atomic number.
        num_crystals: training crystals that have it.
        twin: atomic number of the known element whose weights it starts from; None where nothing was known.
    """

    number: int
    num_crystals: int
    twin: int | None


def start_from(model: CDVAE, init: str | os.PathLike[str], *, train: CrystalBatch | None = None) -> list[str]:
    """Copies into `model` all weights of `init` that fit it; gives the names of the tensors that stay as they are.

    Of tensors that grew with properties or with the number of atoms, the rows that both have are copied. The scales of
    lattices stay those of `init`, which its weights go with. Other statistics, and what is known of the training set,
    are fitted to the new data afterwards, unless codes are kept (`TrainingConfig.codes`).

    Args:
        model: the model to be.
        init: a checkpoint, or the name of a model that the package carries.
        train: the crystals to go on with. Elements of theirs that `init` has never seen start as the known element of
            the same column of the periodic table that is nearest, and are named in the log; so are elements that `init`
            knows and they do not have, which the new model will not make.
    """
    source = CDVAE.from_pretrained(init, device="cpu")
    config, other = source.config, source.state_dict()
    # how much is known is the checkpoint's to say
    model.known_elements = torch.empty_like(other["known_elements"])
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    by_name = () if config.properties == model.config.properties else _go_by_properties(model)
    fitting = {
        name: other[name]
        for name in own
        if name in other
        and (other[name].shape == own[name].shape or name.startswith("prototypes."))
        and not name.startswith(by_name)
    }
    if not fitting:
        raise ValueError(
            f"no weight of {init} fits a model of these settings; give the settings that it was trained with"
        )
    left = sorted(set(own) - set(fitting))
    partly = _partly(model, config, left, own, other)
    fresh = [name for name in left if name not in partly]
    for name, (rows, columns) in partly.items():
        target, source = own[name], other[name]
        here, there = (torch.tensor(index, dtype=torch.long) for index in zip(*rows, strict=True))
        if columns is None:
            target[here] = source[there]
        else:
            to, origin = (torch.tensor(index, dtype=torch.long) for index in zip(*columns, strict=True))
            target[here.unsqueeze(-1), to] = source[there.unsqueeze(-1), origin]
    model.load_state_dict(own | fitting)
    model.lattice_coding.is_fixed = True
    named = [name for name in fresh if not name.startswith("prototypes.")]
    if named:
        logger.warning("%d of %d tensors do not come from %s: %s", len(named), len(own), init, ", ".join(named[:10]))
    if partly:
        logger.warning("of %s these are taken over in part: %s", init, ", ".join(sorted(partly)[:10]))
    if train is not None:
        known = other["known_elements"].tolist()
        _tell_elements(_introduce(model, known, train), known, train, init)
    return fresh


def refuse_unknown(model: CDVAE, crystals: CrystalBatch) -> None:
    """Raises `ValueError` where crystals hold elements that the model, whose encoder is not trained, has never seen."""
    from ase.data import chemical_symbols

    unknown = sorted(set(crystals.atomic_numbers.tolist()) - set(model.known_elements.tolist()))
    if unknown:
        symbols = ", ".join(chemical_symbols[number] for number in unknown)
        raise ValueError(
            f"codes=kept trains no encoder, and this model has never seen {symbols}: leave crystals of these elements "
            "out, or train with codes=learned"
        )


_Pairs = list[tuple[int, int]]
"""(row here, row there)."""


def _go_by_properties(model: CDVAE) -> tuple[str, ...]:
    """How the names of tensors start whose rows or columns stand for properties."""
    last = len(model.property_head.nonlinear) - 1
    head = ("property_head.linear.", f"property_head.nonlinear.{last}.")
    return (*head, "property_mean", "property_std", "prior.told.")


def _partly(
    model: CDVAE, config: CDVAEConfig, fresh: Sequence[str], own: Mapping[str, Tensor], other: Mapping[str, Tensor]
) -> dict[str, tuple[_Pairs, _Pairs | None]]:
    """Rows, and columns if not all, that tensors of another shape share with those of `init`."""
    before, now = config.properties, model.config.properties
    shared = [(now.index(name), before.index(name)) for name in now if name in before]
    sizes = [(i, i) for i in range(min(config.max_atoms, model.config.max_atoms))]
    found: dict[str, tuple[_Pairs, _Pairs | None]] = {}
    for name in fresh:
        if name not in other or other[name].ndim != own[name].ndim or other[name].shape[1:] != own[name].shape[1:]:
            continue
        if name.startswith(_go_by_properties(model)[:-1]):
            if shared:
                found[name] = (shared, None)
        elif name.startswith("num_atoms_head."):
            found[name] = (sizes, None)
        elif name.endswith(".count.weight"):
            found[name] = ([(0, 0), *((i + 1, j + 1) for i, j in sizes)], None)
    told = "prior.told.weight"
    if told in fresh and told in other and len(own[told]) == len(other[told]):
        rows = [(i, i) for i in range(len(own[told]))]
        columns = _shared_columns(model, config)
        if columns and other[told].shape[1] >= max(j for _, j in columns):
            found[told] = (rows, columns)
    return found


def _shared_columns(model: CDVAE, config: CDVAEConfig) -> _Pairs:
    """Columns of the conditions' vector that two models have in common: kinds of the same name, and their flags."""
    columns = {}
    start = 0
    # of the names and widths alone: no scale is asked for
    for kind in build_conditions(config, lambda index: (torch.zeros(()), torch.ones(()))).kinds:
        columns[kind.name] = (start, kind.size)
        start += kind.size + 1
    pairs: _Pairs = []
    start = 0
    for kind in model.conditions.kinds:
        if kind.name in columns:
            first, size = columns[kind.name]
            pairs += [(start + i, first + i) for i in range(min(size, kind.size))]
            pairs.append((start + kind.size, first + size))
        start += kind.size + 1
    return pairs


def _introduce(model: CDVAE, known: Sequence[int], train: CrystalBatch) -> list[NewElement]:
    """Gives elements that are new the embeddings of their nearest known relatives."""
    new = []
    for number in sorted(set(train.atomic_numbers.tolist()) - set(known)):
        crystals = int(train.batch[train.atomic_numbers == number].unique().numel())
        new.append(NewElement(number, crystals, nearest_relative(number, known)))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            *_, module, weight = ["", *name.split(".")]
            # rows go by atomic number
            if not module.startswith("element") or weight != "weight" or len(tensor) != NUM_ELEMENTS + 1:
                continue
            for element in new:
                if element.twin is not None:
                    tensor[element.number] = tensor[element.twin]
    return new


def nearest_relative(number: int, known: Sequence[int]) -> int | None:
    """The known element of the same column of the periodic table that is nearest, else the one of nearest number.

    >>> nearest_relative(54, [18, 36, 53, 55])
    36
    """
    from pymatgen.core import Element

    if not known:
        return None
    column = Element.from_Z(number).group
    relatives = [other for other in known if Element.from_Z(other).group == column]
    return min(relatives or known, key=lambda other: (abs(other - number), other))


def _tell_elements(
    new: Sequence[NewElement], known: Sequence[int], train: CrystalBatch, init: str | os.PathLike[str]
) -> None:
    from ase.data import chemical_symbols

    for element in new:
        start = "at random" if element.twin is None else f"as a copy of {chemical_symbols[element.twin]}"
        logger.warning(
            "%s is new to %s: it starts %s, and is learnt from %d training crystals alone",
            chemical_symbols[element.number],
            _name(init),
            start,
            element.num_crystals,
        )
    gone = sorted(set(known) - set(train.atomic_numbers.tolist()))
    if gone:
        logger.warning(
            "%d elements of %s do not occur in these data, and the new model will not make them: %s",
            len(gone),
            _name(init),
            ", ".join(chemical_symbols[number] for number in gone),
        )


def _name(init: str | os.PathLike[str]) -> str:
    return Path(init).name
