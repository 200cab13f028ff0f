import sys
from pathlib import Path

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from cdvae_kit.relaxation import (
    CALCULATORS,
    CalculatorError,
    LennardJones,
    PotentialCalculator,
    calculators,
    describe_calculator,
    make_calculator,
    make_potential,
)


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_potentials.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "def make():\n    return EMT()\n"
        "def wrong():\n    return 3\n"
        "def the_class():\n    return EMT\n"
        "number = 3\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_potentials", "needs_more"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_potentials"


def test_emt_and_lj_are_always_there() -> None:
    assert isinstance(make_calculator("emt"), EMT)
    assert isinstance(make_calculator("lj"), PotentialCalculator)
    assert isinstance(make_potential("lj"), LennardJones)
    assert make_potential("emt") is None


def test_a_function_of_the_user_gives_a_calculator(user_module: str) -> None:
    atoms = bulk("Cu")
    atoms.calc = EMT()
    bulk_energy = atoms.get_potential_energy()
    atoms.calc = make_calculator(f"{user_module}:make")
    assert atoms.get_potential_energy() == bulk_energy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonsense", "there is no calculator 'nonsense'; known are emt, lj, chgnet, sevenn, mace, orb, mattersim"),
        ("", "there is no calculator"),
        ("no_such_module:make", "no module 'no_such_module'"),
        ("no.such.module:make", "no module 'no'"),
        ("my_potentials:absent", "has no 'absent'"),
        ("my_potentials:number", "is a int"),
        ("my_potentials:wrong", "gave 3"),
        ("my_potentials:the_class", "gave <class"),
        (":make", "names no function"),
        ("my_potentials:", "names no function"),
    ],
)
def test_a_name_that_gives_no_calculator_says_what_is_wrong(user_module: str, name: str, words: str) -> None:
    with pytest.raises(CalculatorError, match=words):
        make_calculator(name)


def test_what_a_module_of_the_user_lacks_is_named(user_module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        make_calculator("needs_more:make")


@pytest.mark.parametrize("name", [name for name in CALCULATORS if name not in ("emt", "lj")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = calculators._PACKAGES[name]
    # what the import system raises where there is no such package
    for module in (
        "chgnet.model.dynamics",
        "sevenn.calculator",
        "mace.calculators",
        "orb_models.forcefield",
        "mattersim.forcefield",
    ):
        monkeypatch.setitem(sys.modules, module.split(".")[0], None)
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "orb_models.forcefield.pretrained", None)
    with pytest.raises(ModuleNotFoundError, match="python -m pip install") as caught:
        make_calculator(name)
    assert package.distribution in str(caught.value)


def test_a_calculator_is_described_by_its_name() -> None:
    assert describe_calculator("chgnet") == "chgnet"
    assert describe_calculator(make_calculator("emt")) == "emt"
    assert "not physical" in describe_calculator(make_calculator("lj"))
    assert "not physical" in describe_calculator(LennardJones())
