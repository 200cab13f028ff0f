"""What is loaded when nothing has been asked for yet: a command that prints its help must not wait for torch."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "torch_geometric", "pymatgen", "ase", "e3nn", "lightning", "numpy", "pandas", "scipy", "matplotlib")


LAZY = sorted(path.parent.name for path in (ROOT / "cdvae_kit").glob("*/__init__.pyi"))


def loaded_heavy_packages(code: str) -> list[str]:
    """Which of the heavy packages a fresh interpreter has loaded after `code`."""
    report = f"\nimport json, sys\nprint('\\n' + json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def help_of(*words: str) -> str:
    return (
        "from cdvae_kit.cli.main import app\n"
        "try:\n"
        f"    app({[*words, '--help']!r})\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code"
    )


def test_the_look_at_loaded_packages_sees_a_heavy_one() -> None:
    assert loaded_heavy_packages("import numpy") == ["numpy"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_heavy_packages("import cdvae_kit\ncdvae_kit.__version__, dir(cdvae_kit)") == []


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("sample",),
        ("train",),
        ("reconstruct",),
        ("interpolate",),
        ("optimize",),
        ("neighbors",),
        ("download",),
        ("info",),
        ("represent",),
    ],
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    assert loaded_heavy_packages(help_of(*words)) == []


@pytest.mark.parametrize("name", LAZY)
def test_every_name_that_a_sub_package_promises_is_there(name: str) -> None:
    package = import_module(f"cdvae_kit.{name}")
    assert package.__all__ and set(package.__all__) <= set(dir(package))
    assert [promised for promised in package.__all__ if not hasattr(package, promised)] == []
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = package.Nonsense


def test_a_name_is_a_function_although_the_module_of_that_name_was_loaded_first() -> None:
    """Python puts a loaded module into its package under its own name."""
    shared = [
        (f"cdvae_kit.{package}", home, name)
        for package in LAZY
        for home, name in re.findall(
            r"^from \.([\w.]+) import \w+ as (\w+)$",
            (ROOT / "cdvae_kit" / package / "__init__.pyi").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        if home.split(".")[0] == name
    ]
    assert ("cdvae_kit.metrics", "coverage", "coverage") in shared
    lines = [f"import {package}.{home}" for package, home, _ in shared]
    lines += [f"from {package} import {name}\nassert callable({name}), {name}" for package, _, name in shared]
    loaded_heavy_packages("\n".join(lines))


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import cdvae_kit

    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = cdvae_kit.Nonsense
