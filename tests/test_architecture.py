"""The package is laid out in floors, and this holds it to the plan.

A sub-package imports from itself and from strictly lower floors only, function-level imports included and
`TYPE_CHECKING` blocks aside. Large sub-packages have rooms, and neither rooms nor modules import each other in a
circle. Change the plan and this file together, in a commit of its own that says why.
"""

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    "cli": 6,
    "visualization": 5,
    "generation": 4,
    "representation": 4,
    "datasets": 3,
    "models": 3,
    "training": 3,
    "metrics": 3,
    "graph": 2,
    "io": 2,
    "transforms": 2,
    "diffusion": 2,
    "relaxation": 2,
    "crystal": 1,
    "nn": 1,
    "typing": 0,
    "seeding": 0,
    "missing": 0,
}
# from bottom to top: a room imports from earlier rooms of its sub-package only. Modules beside the rooms serve them or
# are served by them; no circle is all that is asked of them.
ROOMS: dict[str, tuple[str, ...]] = {
    "visualization": ("crystals", "report"),
    "generation": ("optimization",),
    "representation": ("methods", "experiments"),
    "io": ("results", "crystals"),
    "metrics": ("computing", "fingerprints", "matching"),
}
# a folder for each paper whose experiments need several files
ROOMS_WITH_FOLDERS = {("representation", "experiments")}
MODULES_OF_THE_GROUND = {"missing", "seeding", "typing"}
SUBPACKAGES = set(FLOORS) - MODULES_OF_THE_GROUND
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "CONTRIBUTING.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt"),
    *("mkdocs.yml", ".gitignore", ".ci", "cdvae_kit", "data", "docs", "tests", "examples", "notebooks"),
}
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "misc", "helpers", "helper", "globals"}
LONGEST_FILE = 450

UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
UNPICKLING_CALLS = {"torch.load", "joblib.load", "pandas.read_pickle", "pd.read_pickle"}
DRAWS = {f"torch.{name}" for name in ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")}
DRAWS_WITHOUT_GENERATOR = {"torch.rand_like", "torch.randn_like", "torch.randint_like"}

DISTRIBUTION_OF = {
    "PIL": "pillow",
    "huggingface_hub": "huggingface-hub",
    "lazy_loader": "lazy-loader",
    "sklearn": "scikit-learn",
    "torch_geometric": "torch-geometric",
    "torch_scatter": "torch-scatter",
}


class Import(NamedTuple):
    module: str
    line: int
    in_function: bool


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def dotted_name(node: ast.expr) -> str | None:
    """`a.b.c` of an attribute chain, None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (front := dotted_name(node.value)):
        return f"{front}.{node.attr}"
    return None


def imports_of(tree: ast.AST, package: str, *, in_function: bool = False) -> Iterator[Import]:
    """All that a module of `package` imports when it runs, `import_module("...")` included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for branch in node.orelse:
                yield from imports_of(ast.Module([branch], []), package, in_function=in_function)
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1])
                module = f"{base}.{module}" if module else base
            for alias in node.names:
                yield Import(f"{module}.{alias.name}", node.lineno, in_function)
        elif isinstance(node, ast.Call) and (dotted_name(node.func) or "").split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(name.value, node.lineno, in_function)
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports_of(node, package, in_function=inside)


class Module(NamedTuple):
    path: Path
    name: str  # where it stands, from the root of the repository
    subpackage: str  # "" for cdvae_kit/__init__.py
    package: str
    text: str
    tree: ast.Module


def modules_of(root: Path) -> list[Module]:
    """Each Python file of the package under `root`."""
    found = []
    for path in sorted((root / "cdvae_kit").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        subpackage = "" if parts[1:] == ("__init__",) else parts[1]
        text = path.read_text(encoding="utf-8")
        found.append(Module(path, str(path.relative_to(root)), subpackage, ".".join(parts[:-1]), text, ast.parse(text)))
    return found


def floor_violations(module: Module) -> Iterator[str]:
    if module.subpackage not in FLOORS:  # the front door may name any floor; strangers are reported elsewhere
        return
    own = FLOORS[module.subpackage]
    for found in imports_of(module.tree, module.package):
        parts = found.module.split(".")
        if parts[0] != "cdvae_kit" or parts[1:] == ["__version__"]:
            continue
        where = f"{module.name}:{found.line}"
        target = parts[1] if len(parts) > 1 else ""
        if target not in FLOORS:
            yield f"{where} imports {found.module} through the front door; name its sub-package"
        elif target != module.subpackage and FLOORS[target] >= own:
            yield f"{where} ({module.subpackage}, floor {own}) imports {target} (floor {FLOORS[target]})"


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room that `parts` of a path or a module name lie in, counted from the sub-package; None for none."""
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS.get(parts[0], ()) else None


def room_violations(module: Module) -> Iterator[str]:
    own = room_of(module.path.with_suffix("").parts[-len(module.name.split("/")) + 1 :])
    if own is None:
        return
    order = ROOMS[module.subpackage]
    for found in imports_of(module.tree, module.package):
        parts = tuple(found.module.split("."))
        target = room_of(parts[1:]) if parts[:2] == ("cdvae_kit", module.subpackage) else None
        if target is not None and order.index(target) > order.index(own):
            yield f"{module.name}:{found.line} (room {own}) imports the room {target}, which lies above it"


def circle_violations(modules: list[Module]) -> Iterator[str]:
    """Children of one package (modules, rooms, folders) that import each other in a circle; front doors may."""
    known = {".".join(Path(module.name).with_suffix("").parts) for module in modules}
    arrows: dict[str, dict[str, set[str]]] = {}
    for module in modules:
        own = ".".join(Path(module.name).with_suffix("").parts)
        if own.endswith("__init__"):
            continue
        for found in imports_of(module.tree, module.package):
            target = found.module if found.module in known else found.module.rpartition(".")[0]
            if target not in known:
                continue
            shared = 0
            ours, theirs = own.split("."), target.split(".")
            while ours[shared] == theirs[shared] and shared < min(len(ours), len(theirs)) - 1:
                shared += 1
            if shared > 1 and ours[shared] != theirs[shared]:
                arrows.setdefault(".".join(ours[:shared]), {}).setdefault(ours[shared], set()).add(theirs[shared])
    for package, graph in arrows.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            yield f"{package} has a circle: {' -> '.join(error.args[1])}"


def layout_violations(root: Path) -> Iterator[str]:
    for path in sorted((root / "cdvae_kit").rglob("*")):
        if "__pycache__" in path.parts:
            continue
        inside = path.relative_to(root / "cdvae_kit")
        if inside.name.split(".")[0] in NAMES_THAT_SAY_NOTHING:
            yield f"cdvae_kit/{inside} has a name that says nothing"
        if path.suffix != ".py":
            continue
        if len(inside.parts) == 1 and inside.stem not in MODULES_OF_THE_GROUND | {"__init__"}:
            yield f"cdvae_kit/{inside} belongs to a sub-package"
        depth = len(inside.parts)
        if depth > 2 and (room_of(inside.parts) is None or depth > 3 + (inside.parts[:2] in ROOMS_WITH_FOLDERS)):
            yield f"cdvae_kit/{inside} lies deeper than the rooms of the plan"
        if len(inside.parts) > 1 and inside.parts[0] not in SUBPACKAGES:
            yield f"cdvae_kit/{inside} is in a sub-package that is not in the plan"


def length_violations(module: Module) -> Iterator[str]:
    if (lines := module.text.count("\n")) > LONGEST_FILE:
        yield f"{module.name} has {lines} lines, {LONGEST_FILE} at most"


def unpickling_violations(module: Module) -> Iterator[str]:
    for found in imports_of(module.tree, module.package):
        if found.module.split(".")[0] in UNPICKLERS or found.module in UNPICKLING_CALLS:
            yield f"{module.name}:{found.line} imports {found.module}, which unpickles"
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        if dotted_name(node.func) in UNPICKLING_CALLS:
            yield f"{module.name}:{node.lineno} calls {dotted_name(node.func)}, which unpickles"
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield f"{module.name}:{node.lineno} allows pickle"


def randomness_violations(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or (name := dotted_name(node.func)) is None:
            continue
        drawn = name in DRAWS and not any(keyword.arg == "generator" for keyword in node.keywords)
        if drawn or name in DRAWS_WITHOUT_GENERATOR:
            yield f"{module.name}:{node.lineno} calls {name} without a generator"


def docstring_violations(module: Module) -> Iterator[str]:
    if ast.get_docstring(module.tree) is None:
        yield f"{module.name} does not say what belongs in it"


CHECKS_OF_MODULES = (
    floor_violations,
    room_violations,
    length_violations,
    unpickling_violations,
    randomness_violations,
    docstring_violations,
)


def violations(root: Path) -> list[str]:
    """All faults of the package under `root`."""
    found = list(layout_violations(root))
    modules = modules_of(root)
    found.extend(circle_violations(modules))
    for module in modules:
        for check in CHECKS_OF_MODULES:
            found.extend(check(module))
    return found


def requirement_name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def undeclared_imports(root: Path) -> list[str]:
    """Imports of other people's packages that pyproject.toml does not ask for.

    What a module imports at its top must come with the core; inside a function an extra is enough.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {requirement_name(line) for line in project["dependencies"]}
    extras = {
        requirement_name(line)
        for extra, lines in project.get("optional-dependencies", {}).items()
        if extra not in ("test", "dev")
        for line in lines
    }
    found = []
    for module in modules_of(root):
        for imported in imports_of(module.tree, module.package):
            name = imported.module.split(".")[0]
            if name == "cdvae_kit" or name in sys.stdlib_module_names:
                continue
            distribution = DISTRIBUTION_OF.get(name, name)
            if distribution not in (core | extras if imported.in_function else core):
                found.append(f"{module.name}:{imported.line} imports {name}, which pyproject.toml does not ask for")
    return found


def test_the_package_keeps_to_its_plan() -> None:
    assert violations(ROOT) == []


def test_every_import_is_declared() -> None:
    assert undeclared_imports(ROOT) == []


def test_the_tests_stand_in_folders_named_as_the_sub_packages() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/*.py")}
    assert folders <= SUBPACKAGES | {"benchmarks", "campaign"}


def test_the_top_level_holds_only_what_the_plan_names() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: what belongs to the repository is not known")
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in listing.splitlines()} <= TOP_LEVEL


# The checker itself


def make_package(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "cdvae_kit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Says what belongs here."""\n' + textwrap.dedent(text))
    return root


def test_the_checker_accepts_a_house_in_order(tmp_path: Path) -> None:
    root = make_package(
        tmp_path,
        {
            "__init__.py": "from cdvae_kit.cli import main",
            "seeding.py": "import math",
            "crystal/batch.py": """
                from typing import TYPE_CHECKING
                import torch
                from cdvae_kit import __version__, seeding
                from cdvae_kit.crystal.lattice import volume
                from .lattice import volume
                if TYPE_CHECKING:
                    from cdvae_kit.models import CDVAE
                noise = torch.rand(3, generator=seeding.make_generator(0))
            """,
            "io/checkpoint.py": """
                import numpy as np
                from cdvae_kit.crystal import batch
                table = np.load("a", allow_pickle=False)
            """,
            "cli/main.py": "def main():\n    from cdvae_kit.generation import sample",
        },
    )
    assert violations(root) == []


@pytest.mark.parametrize(
    "line",
    [
        "from cdvae_kit.models import CDVAE",
        "from cdvae_kit.io.cif import read_cif",
        "from cdvae_kit.nn import MLP",
        "import cdvae_kit.nn",
        "from cdvae_kit import nn",
        "from cdvae_kit import CDVAE",
        "import cdvae_kit",
        "from .. import nn",
        "from ..nn import MLP",
        "from ..nn.mlp import MLP",
        "def f():\n    from cdvae_kit.models import CDVAE",
        "class A:\n    def f(self):\n        import cdvae_kit.nn",
        "if True:\n    from cdvae_kit.models import CDVAE",
        "try:\n    import cdvae_kit.nn\nfinally:\n    pass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import cdvae_kit.nn",
        "from importlib import import_module\nmodels = import_module('cdvae_kit.models')",
        "models = __import__('cdvae_kit.models')",
    ],
)
def test_the_checker_sees_an_import_from_the_same_floor_or_above(tmp_path: Path, line: str) -> None:
    assert len(violations(make_package(tmp_path, {"crystal/batch.py": line}))) == 1


def test_the_checker_lets_only_the_type_checker_look_up(tmp_path: Path) -> None:
    files = {"crystal/batch.py": "import typing\nif typing.TYPE_CHECKING:\n    from cdvae_kit.models import CDVAE"}
    assert violations(make_package(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crystal/utils.py", "says nothing"),
        ("crystal/helpers.py", "says nothing"),
        ("common/__init__.py", "says nothing"),
        ("engine/__init__.py", "not in the plan"),
        ("engine.py", "belongs to a sub-package"),
        ("crystal/deep/batch.py", "deeper than the rooms"),
        ("io/strange/cif.py", "deeper than the rooms"),
        ("io/crystals/deep/cif.py", "deeper than the rooms"),
    ],
)
def test_the_checker_sees_a_file_out_of_place(tmp_path: Path, name: str, words: str) -> None:
    assert any(words in line for line in violations(make_package(tmp_path, {name: ""})))


def test_the_checker_sees_a_room_that_imports_one_above_it(tmp_path: Path) -> None:
    files = {"io/crystals/cif.py": "from cdvae_kit.io.results import store", "io/results/store.py": ""}
    assert violations(make_package(tmp_path / "down", files)) == []
    files = {"io/results/store.py": "def f():\n    from ..crystals.cif import read_cif", "io/crystals/cif.py": ""}
    assert len(violations(make_package(tmp_path / "up", files))) == 1


def test_the_checker_sees_a_circle_of_modules_and_of_rooms(tmp_path: Path) -> None:
    modules = {
        "nn/a.py": "from cdvae_kit.nn.b import B",
        "nn/b.py": "from cdvae_kit.nn import c",
        "nn/c.py": "def f():\n    from .a import A",
    }
    assert [line.split(":")[0] for line in violations(make_package(tmp_path / "modules", modules))] == [
        "cdvae_kit.nn has a circle"
    ]
    through_a_room = {
        "io/atomic.py": "from cdvae_kit.io.crystals.cif import read_cif",
        "io/crystals/cif.py": "",
        "io/crystals/csv.py": "from cdvae_kit.io.atomic import atomic",
    }
    assert len(violations(make_package(tmp_path / "rooms", through_a_room))) == 1
    through_a_room["io/atomic.py"] = ""
    assert violations(make_package(tmp_path / "line", through_a_room)) == []


def test_the_checker_sees_a_file_that_is_too_long(tmp_path: Path) -> None:
    fits = make_package(tmp_path / "fits", {"nn/mlp.py": "\n" * (LONGEST_FILE - 1)})
    long = make_package(tmp_path / "long", {"nn/mlp.py": "\n" * LONGEST_FILE})
    assert (violations(fits), len(violations(long))) == ([], 1)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill",
        "import torch\nweights = torch.load('weights.pt')",
        "import torch\nweights = torch.load('weights.pt', weights_only=True)",
        "from torch import load",
        "import pandas as pd\ntable = pd.read_pickle('a')",
        "import numpy as np\ntable = np.load('a', allow_pickle=True)",
    ],
)
def test_the_checker_sees_whatever_unpickles(tmp_path: Path, line: str) -> None:
    assert len(violations(make_package(tmp_path, {"io/checkpoint.py": line}))) == 1


@pytest.mark.parametrize("line", ["torch.rand(3)", "torch.randn_like(x)", "torch.randperm(5, device='cpu')"])
def test_the_checker_sees_a_draw_without_a_generator(tmp_path: Path, line: str) -> None:
    assert len(violations(make_package(tmp_path, {"diffusion/noise.py": line}))) == 1


def test_the_checker_sees_a_module_without_a_docstring(tmp_path: Path) -> None:
    root = make_package(tmp_path, {"nn/mlp.py": ""})
    (root / "cdvae_kit/nn/mlp.py").write_text("x = 1\n")
    assert len(violations(root)) == 1


def test_the_checker_sees_an_undeclared_import(tmp_path: Path) -> None:
    root = make_package(
        tmp_path,
        {
            "metrics/coverage.py": "import os\nimport torch\nimport matminer\ndef f():\n    import matminer, sklearn",
            "crystal/batch.py": "import torch_geometric.data\nfrom .lattice import volume",
        },
    )
    (root / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch>=2.6,<3", "torch_geometric"]\n'
        '[project.optional-dependencies]\nmetrics = ["matminer"]\ntest = ["scikit-learn"]\n'
    )
    assert [line.split(" imports ")[1].split(",")[0] for line in undeclared_imports(root)] == ["matminer", "sklearn"]
