"""The documentation says what is so: its code runs, its commands parse, its links lead somewhere."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml

from cdvae_kit.cli.main import app

# typer carries a click of its own
UsageError = typer.BadParameter.__mro__[1]

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"\]\[([\w.]+)\]")
_OBJECT = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in _FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def relative(page: Path) -> str:
    return str(page.relative_to(DOCS))


def commands(text: str) -> list[list[str]]:
    """The words of each `generate-crystals` line, without the name itself."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("generate-crystals ")]


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command; files that it names need not be there."""
    group = typer.main.get_group(app)
    command = group.commands.get(words[0])
    if command is None:
        return f"no command {words[0]}"
    try:
        command.make_parser(typer.Context(command)).parse_args(words[1:])
    except UsageError as error:
        return str(error)
    return None


def is_there(name: str) -> bool:
    """Whether a dotted name is a module or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def nav_pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in nav_pages(child)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=relative)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n\n".join(blocks(page, "python"))
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test_the_code_of_a_page_runs(ROOT / "README.md", tmp_path, monkeypatch)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_the_commands_of_a_page_are_those_of_the_package(page: Path) -> None:
    found = [words for text in blocks(page, "console") for words in commands(text)]
    assert {shlex.join(words): reason for words in found if (reason := complaint(words))} == {}


def test_a_wrong_command_is_noticed() -> None:
    assert complaint(["sample", "--num-crystals", "3"]) is None
    assert complaint(["sample", "--nonsense"]) and complaint(["nonsense"])


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_to_pages_and_names_to_the_package(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in _LINK.findall(text) if not re.match(r"https?:|#", link)]
    assert [link for link in links if not (page.parent / link).is_file()] == []
    assert [name for name in [*_REFERENCE.findall(text), *_OBJECT.findall(text)] if not is_there(name)] == []


def test_every_page_stands_in_the_menu_and_every_entry_is_a_page() -> None:
    menu = nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(menu) == sorted(relative(page) for page in PAGES)


def test_every_sub_package_has_a_page_of_reference() -> None:
    names = {path.parent.name for path in (ROOT / "cdvae_kit").glob("*/__init__.py")}
    assert names <= {page.stem for page in (DOCS / "reference").glob("*.md")}


EXTENSIONS = sorted(set((DOCS / "extend").glob("*.md")) - {DOCS / "extend" / "index.md"})
MADE_ALONG_A_PAGE = {
    "cdvae_kit/io/crystals/lines.py",
    "cdvae_kit/models/edge_sum.py",
    "cdvae_kit/representation/experiments/heavy_tails.py",
    "tests/representation/test_heavy_tails.py",
}
_FILE = re.compile(r"`((?:cdvae_kit|tests)/[^`]*)`")


def files_to_open(section: str) -> set[str]:
    return set(_FILE.findall(_FENCE.sub("", section)))


@pytest.mark.parametrize("page", EXTENSIONS, ids=relative)
def test_each_part_of_an_extension_takes_at_most_four_files_and_names_them(page: Path) -> None:
    sections = page.read_text(encoding="utf-8").split("\n## ")
    files = [files_to_open(section) for section in sections]
    assert all(len(named) <= 4 for named in files) and any(files)
    for name in set().union(*files):
        path = ROOT / name
        assert path.parent.is_dir() and path.is_file() != (name in MADE_ALONG_A_PAGE), name


def test_files_to_open_are_counted_once_and_outside_code() -> None:
    text = "`tests/a.py`, `tests/a.py`\nand `cdvae_kit/io/b.py`; `x.y`\n```python\n# `tests/c.py`\n```\n"
    assert files_to_open(text) == {"tests/a.py", "cdvae_kit/io/b.py"}


def test_each_of_the_seven_extensions_has_a_page() -> None:
    assert [page.stem for page in EXTENSIONS] == [
        *("condition", "data_set", "experiment", "file_format", "metric", "noise_process", "score_network"),
    ]
