"""The option that says how long the campaign is, and what its tests share."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaign import commands
from tests.campaign.kills import Unbroken, unbroken


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--campaign",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="How long the campaign of faults is: 1 takes minutes, 100 hours.",
    )
    parser.addoption(
        "--first-seed",
        type=int,
        default=0,
        metavar="N",
        help="The seed of the first damaged file of a kind; another one damages other files.",
    )
    parser.addoption(
        "--kinds",
        default="",
        metavar="NAMES",
        help="Damage files of these kinds only: their names as they are printed, with commas between.",
    )


@pytest.fixture(scope="session")
def kinds(request: pytest.FixtureRequest) -> list[str]:
    return [name.strip() for name in str(request.config.getoption("--kinds")).split(",") if name.strip()]


@pytest.fixture(scope="session")
def first_seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--first-seed"))


@pytest.fixture(scope="session")
def factor(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--campaign"))


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder in memory where there is one: a campaign writes and syncs hundreds of thousands of files."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def inputs(place: Path) -> Iterator[Path]:
    """What the commands read, a toy data set and a toy experiment."""
    import tests.representation.toy as toy_module
    from cdvae_kit.datasets import registry
    from tests.representation.toy import Toy

    commands.preload()
    folder = place / "inputs"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        _leave_out_what_changes_no_file(patch)
        commands.make_inputs(folder)
        patch.setattr(registry, "DATASETS", {**registry.DATASETS, "toy": commands.toy_dataset(folder)})
        patch.setattr(toy_module, "EXPERIMENT", Toy(), raising=False)
        patch.setattr("cdvae_kit.representation.experiments.registry._HOMES", {"toy": "toy"})
        patch.setattr(
            "cdvae_kit.representation.experiments.registry.import_module",
            lambda name: {"cdvae_kit.representation.experiments.toy": toy_module}[name],
        )
        yield folder


def _leave_out_what_changes_no_file(patch: pytest.MonkeyPatch) -> None:
    """Most of the time of the commands: how e3nn's layers are compiled, and how long `optimize` searches."""
    import e3nn
    from e3nn.math import _normalize_activation

    from cdvae_kit.generation.optimization import bayesian_search

    patch.setitem(e3nn._OPT_DEFAULTS, "optimize_einsums", False)
    patch.setattr(_normalize_activation, "moment", functools.cache(_normalize_activation.moment))
    patch.setattr(
        bayesian_search,
        "BayesianSearch",
        functools.partial(bayesian_search.BayesianSearch, num_rounds=2, num_candidates=50),
    )
    with contextlib.suppress(ImportError):
        patch.setattr("botorch.fit.fit_gpytorch_mll", lambda likelihood: likelihood)


@pytest.fixture(scope="session")
def ends(inputs: Path, place: Path) -> Callable[[str], Unbroken]:
    """What the command of a name leaves when nothing happens to it, found once."""
    known: dict[str, Unbroken] = {}

    def end(name: str) -> Unbroken:
        if name not in known:
            command = next(one for one in commands.commands(inputs) if one.name == name)
            known[name] = unbroken(command, place / "run", inputs)
        return known[name]

    return end
