"""From crystals to properties: an ensemble of networks with calibrated intervals, the independent judge.

Crystals that cannot be judged (no cell, overlapping atoms, an element that the training crystals did not have) come
back with their reason and NaN. How it is trained is in `cdvae_kit.training.predictor`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.crystal.batch import concatenate
from cdvae_kit.crystal.conversion import atoms_to_batch, structures_to_batch
from cdvae_kit.crystal.errors import CrystalError
from cdvae_kit.crystal.faults import crystal_faults
from cdvae_kit.crystal.symmetric import SymmetricCrystals
from cdvae_kit.models import pretrained
from cdvae_kit.models.calibration import Calibration, PropertyPrediction, named_predictions, typical_error
from cdvae_kit.models.predictor_config import PropertyPredictorConfig
from cdvae_kit.models.property_network import PropertyNetwork
from cdvae_kit.typing import Progress

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["PropertyPrediction", "PropertyPredictor"]

WEIGHTS_FOLDER = "property_predictors"
_MAX_VOLUME = 1e4
"""Cubic angstrom an atom, above which a cell is vacuum."""


_MAX_EDGES = 400_000
"""Edges at once, some 1 GiB; a batch with more is cut into halves."""


class PropertyPredictor(pretrained.PretrainedModule):
    """An ensemble from crystals to properties.

    Args:
        config: the settings; they are stored in every checkpoint.

    >>> predictor = PropertyPredictor(PropertyPredictorConfig(properties=("heat_ref",), units=("eV/atom",)))
    >>> len(predictor.members)
    4
    """

    def __init__(self, config: PropertyPredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}
        """What is known of the weights: data, split, seed, device, time, errors."""
        self.members = nn.ModuleList(PropertyNetwork(config) for _ in range(config.num_members))
        self.calibration = Calibration(len(config.properties))

    @property
    def device(self) -> torch.device:
        return self.calibration.offset.device

    @property
    def units(self) -> dict[str, str]:
        """The unit of each property."""
        return dict(zip(self.config.properties, self.config.units, strict=True))

    @property
    def known_elements(self) -> Tensor:
        """(num_elements,) long: atomic numbers that every member has been trained on."""
        known = [set(member.known_elements.tolist()) for member in self._networks()]
        return torch.tensor(sorted(set.intersection(*known)), dtype=torch.long, device=self.device)

    def predict(
        self,
        crystals: CrystalBatch | Sequence[Structure | Atoms],
        *,
        batch_size: int = 128,
        progress: Progress | None = None,
    ) -> dict[str, PropertyPrediction]:
        """Each property of each crystal; the ones that cannot be judged have NaN and a reason in `faults`.

        Args:
            crystals: a batch, or pymatgen structures, or ASE atoms; any cell of the crystal will do.
            batch_size: crystals at a time; changes the result by rounding alone, some 1e-6 of it.
            progress: called with (crystals done, crystals in all).
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        batch, faults = readable_crystals(crystals)
        good = [i for i, fault in enumerate(faults) if fault is None]
        if batch is not None:
            batch = batch.replace(properties={}, material_ids=None)
            for place, fault in zip(good, self._faults(batch), strict=True):
                faults[place] = fault
            batch = batch.select([k for k, place in enumerate(good) if faults[place] is None])
            good = [i for i, fault in enumerate(faults) if fault is None]
        members = torch.full((len(self.members), len(faults), len(self.config.properties)), float("nan"))
        for start in range(0, len(good), batch_size):
            assert batch is not None
            some = batch.select(range(start, min(start + batch_size, len(good)))).to(self.device)
            members[:, good[start : start + batch_size]] = self.member_predictions(some).cpu()
            if progress is not None:
                progress(min(start + batch_size, len(good)) + len(faults) - len(good), len(faults))
        if progress is not None and not good:
            progress(len(faults), len(faults))
        calibration = Calibration(len(self.config.properties))
        calibration.load_state_dict(self.calibration.state_dict())
        return named_predictions(
            members,
            calibration,
            names=self.config.properties,
            units=self.config.units,
            coverage=self.config.coverage,
            faults=tuple(faults),
        )

    @torch.no_grad()
    def member_predictions(self, crystals: CrystalBatch) -> Tensor:
        """(num_members, num_crystals, num_properties), in the data's own units; the crystals are not checked."""
        networks = self._networks()
        graph = networks[0].graph(crystals)
        if graph.edge_index.shape[1] > _MAX_EDGES and len(crystals) > 1:
            # collapsed cells have thousands of neighbours an atom
            parts = torch.arange(len(crystals), device=crystals.lattice.device).tensor_split(2)
            return torch.cat([self.member_predictions(crystals.select(part)) for part in parts], dim=1)
        training = [member.training for member in networks]
        try:
            return torch.stack(
                [member.eval()(crystals, graph) * member.property_std + member.property_mean for member in networks]
            )
        finally:
            for member, mode in zip(networks, training, strict=True):
                member.train(mode)

    def calibrate(self, held_out: CrystalBatch, *, out_of_fold: Tensor) -> None:
        """Makes the intervals hold what they promise.

        Args:
            held_out: crystals that no member has seen in training, with the properties; they set the quantile.
            out_of_fold: (any number, num_properties): errors of members on crystals that the member has not learned
                from, in the data's own units; their median is the typical error.
        """
        predictions = self.predict(held_out)
        names = self.config.properties
        self.calibration.fit(
            torch.stack([predictions[name].mean for name in names], dim=-1).to(self.device),
            torch.stack([predictions[name].spread for name in names], dim=-1).to(self.device),
            torch.stack([held_out.properties[name] for name in names], dim=-1).to(self.device),
            offset=typical_error(out_of_fold).to(self.device),
            coverage=self.config.coverage,
        )

    # -- files ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], *, device: str = "auto") -> PropertyPredictor:
        """The predictor of a checkpoint folder, or one that the package carries (`pretrained_names`).

        Args:
            name_or_path: a folder that exists wins over a name of the package's own.
            device: `auto` takes CUDA, then Apple's MPS, then the CPU; or any name that torch knows.
        """
        config, tensors, card = pretrained.load_settings(
            name_or_path, PropertyPredictorConfig, folder=WEIGHTS_FOLDER, expected=("calibration.quantile",)
        )
        model = pretrained.build(cls, config, tensors, name_or_path)
        for i, member in enumerate(model._networks()):
            if f"members.{i}.known_elements" in tensors:
                member.known_elements = torch.empty_like(tensors[f"members.{i}.known_elements"])
        pretrained.put_weights(model, tensors, name_or_path)
        model.card = card
        return model.eval().to(pretrained.choose_device(device))

    def _contents(self) -> str:
        named = zip(self.config.properties, self.config.units, strict=True)
        asked = [f"{name} in {unit}" if unit else name for name, unit in named]
        return f"{', '.join(asked)}; {self.config.num_members} networks, {super()._contents()}"

    def _networks(self) -> list[PropertyNetwork]:
        return [member for member in self.members if isinstance(member, PropertyNetwork)]

    def _faults(self, batch: CrystalBatch) -> list[str | None]:
        """Why a crystal of a batch cannot be judged, None where it can."""
        known = set(self.known_elements.tolist())
        faults: list[str | None] = []
        sizes = batch.num_atoms.tolist()
        for error, numbers, size, cell in zip(
            crystal_faults(batch),
            batch.atomic_numbers.split(sizes),
            sizes,
            batch.lattice.double(),
            strict=True,
        ):
            if error is not None:
                faults.append(str(error))
            elif strange := sorted(set(numbers.tolist()) - known):
                faults.append(_strange_elements(strange))
            elif float(torch.linalg.det(cell).abs()) > _MAX_VOLUME * size:
                faults.append(f"the cell has more than {_MAX_VOLUME:g} cubic angstrom an atom; look at its unit")
            else:
                faults.append(None)
        return faults


def readable_crystals(
    crystals: CrystalBatch | Sequence[Structure | Atoms],
) -> tuple[CrystalBatch | None, list[str | None]]:
    """A float32 batch of those that can be converted, None if there are none; and for each crystal why not, or None."""
    from ase import Atoms
    from pymatgen.core import Structure

    if isinstance(crystals, CrystalBatch):
        if not len(crystals):
            return None, []
        moved = crystals.to("cpu")
        if isinstance(moved, SymmetricCrystals):
            moved = moved.plain()
        return moved.replace(frac_coords=moved.frac_coords.float(), lattice=moved.lattice.float()), [None] * len(moved)
    if isinstance(crystals, Structure | Atoms):
        raise TypeError(f"expected a sequence of crystals, got one {type(crystals).__name__}; put it into a list")
    batches, faults = [], list[str | None]()
    for crystal in crystals:
        try:
            batches.append(atoms_to_batch([crystal]) if isinstance(crystal, Atoms) else structures_to_batch([crystal]))
            faults.append(None)
        except CrystalError as error:
            faults.append(str(error))
    plain = [one.replace(properties={}, material_ids=None) for one in batches]
    return (concatenate(plain) if plain else None), faults


def _strange_elements(numbers: list[int]) -> str:
    from pymatgen.core import Element

    names = ", ".join(Element.from_Z(number).symbol for number in numbers)
    return f"holds {names}, which the predictor's training crystals did not have; it cannot judge it"
