"""Calculators by name: ASE's own, machine-learned potentials that are extras, and any function of the user's."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes
from ase.calculators.emt import EMT

from cdvae_kit.crystal.conversion import atoms_to_batch
from cdvae_kit.relaxation.potentials import BatchedPotential, CHGNetPotential, LennardJones
from cdvae_kit.relaxation.sevennet import SevenNetPotential


class CalculatorError(ValueError):
    """A name that gives no calculator, and why."""


class _Package(NamedTuple):
    """A potential that another package has."""

    distribution: str
    install: str
    make: Callable[[str], Any]


class PotentialCalculator(Calculator):
    """A `BatchedPotential` as an ASE calculator, one crystal at a time."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 -- as ASE declares it

    def __init__(self, potential: BatchedPotential) -> None:
        super().__init__()
        self.potential = potential

    @property
    def name(self) -> str:
        return self.potential.name

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties or self.implemented_properties, system_changes)
        assert self.atoms is not None
        values = self.potential.evaluate(atoms_to_batch([self.atoms], dtype=torch.float64))
        if (reason := values.reasons[0]) is not None:
            raise ValueError(reason)
        energy = float(values.energies[0])
        stress = values.stresses[0].numpy()
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": values.forces.numpy(),
            # xx, yy, zz, yz, xz, xy
            "stress": np.array([stress[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]),
        }


def make_calculator(name: str, *, device: str = "auto") -> BaseCalculator:
    """The ASE calculator of that name.

    Args:
        name: `emt` (ASE's; Al, Cu, Ag, Au, Ni, Pd, Pt and a few light elements), `lj` (not physical, see
            `potentials`), `chgnet`, `sevenn`, `mace`, `orb`, `mattersim`, or `module:function` for a function without
            arguments that returns a calculator.
        device: `cpu`, `cuda` and so on; `auto` takes a GPU where there is one. ASE's own and the user's go without.

    >>> make_calculator("emt").name
    'emt'
    """
    if name == "emt":
        return EMT()
    if name == "lj":
        return PotentialCalculator(LennardJones(device=_device(device)))
    if name in _PACKAGES:
        return _from_package(name, _device(device))
    if ":" in name:
        return _from_function(name)
    raise CalculatorError(f"there is no calculator {name!r}; known are {', '.join(CALCULATORS)}, or module:function")


def make_potential(name: str, *, device: str = "auto") -> BatchedPotential | None:
    """The potential of that name that takes many crystals at once; None where only a calculator is known."""
    if name == "lj":
        return LennardJones(device=_device(device))
    if name == "chgnet":
        chgnet: BatchedPotential = _of_package(name, CHGNetPotential, device=_device(device))
        return chgnet
    if name == "sevenn":
        sevennet: BatchedPotential = _of_package(name, SevenNetPotential, device=_device(device))
        return sevennet
    return None


def describe_calculator(calculator: BaseCalculator | BatchedPotential | str) -> str:
    """What to print beside a number that a calculator gave: its name, and a version where it has one."""
    if isinstance(calculator, str):
        return calculator
    name = getattr(calculator, "name", None) or type(calculator).__name__
    version = getattr(calculator, "version", None)
    return f"{name} {version}" if version else str(name)


def _chgnet(device: str) -> Any:
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device=device, on_isolated_atoms="error")


def _sevenn(device: str) -> Any:
    return PotentialCalculator(SevenNetPotential(device=device))


def _mace(device: str) -> Any:
    return _load("mace.calculators").mace_mp(device=device, default_dtype="float64")


def _orb(device: str) -> Any:
    model = _load("orb_models.forcefield.pretrained").orb_v3_conservative_inf_omat(device=device)
    # from 0.6 on the loaders give the model and what makes its graphs
    if isinstance(model, tuple):
        return _load("orb_models.forcefield.inference.calculator").ORBCalculator(*model, device=device)
    return _load("orb_models.forcefield.calculator").ORBCalculator(model, device=device)


def _mattersim(device: str) -> Any:
    return _load("mattersim.forcefield").MatterSimCalculator(device=device)


def _load(module: str) -> Any:
    """A module of a package that cannot be installed beside all the others."""
    return importlib.import_module(module)


_PACKAGES = {
    "chgnet": _Package("chgnet", "python -m pip install 'cdvae-kit[chgnet]'", _chgnet),
    "sevenn": _Package("sevenn", "python -m pip install 'cdvae-kit[sevenn]'", _sevenn),
    # mace-torch pins e3nn 0.4.4, which torch 2.6 cannot load, and works with the releases that this package needs
    "mace": _Package(
        "mace-torch",
        "python -m pip install 'cdvae-kit[mace]', then python -m pip install --no-deps mace-torch",
        _mace,
    ),
    "orb": _Package("orb-models", "python -m pip install 'cdvae-kit[orb]'", _orb),
    "mattersim": _Package("mattersim", "python -m pip install 'cdvae-kit[mattersim]'", _mattersim),
}

CALCULATORS = ("emt", "lj", *_PACKAGES)
"""The names that `make_calculator` knows, beside `module:function`."""


def _from_package(name: str, device: str) -> BaseCalculator:
    calculator: BaseCalculator = _of_package(name, _PACKAGES[name].make, device)
    return calculator


def _of_package(name: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    package = _PACKAGES[name]
    try:
        # they greet on the screen
        with contextlib.redirect_stdout(io.StringIO()):
            return make(*args, **kwargs)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the calculator {name!r} needs {package.distribution}, and {error.name} is not installed: "
            f"{package.install}",
            name=error.name,
        ) from error


def _from_function(name: str) -> BaseCalculator:
    module_name, _, function_name = name.partition(":")
    expected = "expected module:function, a function without arguments that returns an ASE calculator"
    if not module_name or not function_name:
        raise CalculatorError(f"{name!r} names no function; {expected}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # a module that is there, and lacks another one
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise CalculatorError(
            f"there is no module {error.name!r} for the calculator {name!r}; install it or put its folder on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if function is None:
        raise CalculatorError(f"the module {module_name!r} has no {function_name!r}; {expected}")
    if not callable(function):
        raise CalculatorError(f"{name!r} is a {type(function).__name__}; {expected}")
    calculator = function()
    # ASE's own older calculators are no BaseCalculator
    if isinstance(calculator, type) or not hasattr(calculator, "get_potential_energy"):
        raise CalculatorError(f"{name!r} gave {repr(calculator)[:60]}; {expected}")
    return calculator


def _device(device: str) -> str:
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"
