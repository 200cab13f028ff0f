"""How crystals look in a notebook."""

import torch
from IPython.core.formatters import DisplayFormatter

import cdvae_kit
from cdvae_kit.crystal import CrystalBatch, concatenate
from cdvae_kit.crystal.symmetric import describe
from cdvae_kit.visualization.crystals import notebook

SALT = CrystalBatch(
    torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]]), 4.1 * torch.eye(3)[None], torch.tensor([55, 17]), torch.tensor([2])
)


class Shell:
    def __init__(self) -> None:
        self.display_formatter = DisplayFormatter()


def registered(monkeypatch) -> DisplayFormatter:
    shell = Shell()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    cdvae_kit._show_crystals_in_notebooks()
    return shell.display_formatter


def test_a_batch_shows_a_structure_that_turns(monkeypatch) -> None:
    monkeypatch.setattr(notebook, "_has_widget", lambda: False)
    formatter = registered(monkeypatch)
    for crystals in (SALT, describe(SALT)):
        found, _ = formatter.format(crystals)
        assert "Cs" in found["text/html"] and found["application/vnd.plotly.v1+json"]["data"]
        assert found["text/plain"] == repr(crystals)


def test_of_several_the_first_is_shown_and_the_others_are_told(monkeypatch) -> None:
    monkeypatch.setattr(notebook, "_has_widget", lambda: False)
    found, _ = registered(monkeypatch).format(concatenate([SALT, SALT, SALT]))
    assert "crystals[1] to crystals[2]" in found["text/plain"] and "text/html" in found


def test_a_batch_without_crystals_shows_text(monkeypatch) -> None:
    found, _ = registered(monkeypatch).format(SALT[:0])
    assert list(found) == ["text/plain"]


def test_the_widget_is_shown_where_it_can_be_had_and_a_figure_where_not(monkeypatch) -> None:
    import pymatviz

    class Widget:
        def __init__(self, *, structure: object) -> None:
            self.structure = structure

        def _repr_mimebundle_(self) -> dict[str, object]:
            return {"application/vnd.jupyter.widget-view+json": {"formula": self.structure.formula}}

    def no_network(*, structure: object) -> None:
        raise FileNotFoundError("no network")

    monkeypatch.setattr(pymatviz, "StructureWidget", Widget, raising=False)
    assert "application/vnd.jupyter.widget-view+json" in notebook.mime_bundle(SALT)[0]
    monkeypatch.setattr(pymatviz, "StructureWidget", no_network, raising=False)
    assert "text/html" in notebook.mime_bundle(SALT)[0]
