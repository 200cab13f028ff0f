"""Protocols: what they set, and numbers on a small set by hand and by the functions that the papers use."""

import warnings
from dataclasses import fields

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from cdvae_kit.metrics import PROTOCOLS, EvaluationSettings, StabilityRequest, evaluate, protocol_settings
from cdvae_kit.metrics import evidence as evidence_module
from cdvae_kit.metrics.protocols import clashes, protocol_of
from cdvae_kit.metrics.registry import FAMILIES


def salt(length: float = 4.1, stretch: float = 1.0) -> Structure:
    """Caesium chloride, its cell longer along c."""
    return Structure(Lattice.tetragonal(length, length * stretch), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


MAGNETITE = Structure(Lattice.cubic(6.0), ["Fe"] * 3 + ["O"] * 4, np.arange(21).reshape(7, 3) / 21)
ALLOY = Structure(Lattice.tetragonal(2.8, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CRUSHED = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0, 0, 0.02]])
# salts that some tolerances tell apart and others do not, an alloy, an oxide, one whose atoms overlap
GENERATED = [salt(), salt(4.2), salt(4.1, 1.25), salt(4.1, 1.45), ALLOY, MAGNETITE, CRUSHED, salt()]
TRAIN = [salt(4.15), MAGNETITE]
TOLERANCES = {
    "lemat": {"ltol": 0.1, "stol": 0.3, "angle_tol": 5},
    "omatg": {"ltol": 0.2, "stol": 0.3, "angle_tol": 5},
    "crystalite": {"ltol": 0.2, "stol": 0.3, "angle_tol": 5},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_each_sets_what_there_is_to_set_and_says_what_it_cannot(name: str) -> None:
    protocol = protocol_of(name)
    assert set(protocol.settings) <= {field.name for field in fields(EvaluationSettings)}
    assert set(protocol.stability) <= {field.name for field in fields(StabilityRequest)}
    settings = protocol_settings(name, EvaluationSettings(cutoffs="perov_5", seed=4, symprec=0.2))
    assert (settings.cutoffs, settings.seed, settings.symprec, settings.protocol) == ("perov_5", 4, 0.2, name)
    assert len(protocol.differs) > 1 and "arXiv" in protocol.source


@pytest.mark.parametrize("name", TOLERANCES)
def test_uniqueness_and_novelty_are_those_of_the_papers_matcher(name: str) -> None:
    matcher = StructureMatcher(**TOLERANCES[name])
    new = [not any(matcher.fit(structure, known) for known in TRAIN) for structure in GENERATED]
    settings = protocol_settings(name)
    found = evaluate(GENERATED, train=TRAIN, settings=settings).crystals
    assert [row.verdicts["novel"] for row in found] == new
    # of two crystals alone there is no chain of similarities
    alike = matcher.fit(salt(), salt(4.1, 1.45))
    pair = evaluate([salt(), salt(4.1, 1.45)], settings=settings).metrics["unique"].value
    assert pair == (0.5 if alike else 1.0)


def test_the_tolerances_tell_these_sets_apart() -> None:
    # the control: were all protocols alike on the set, the test above could not see a mix-up
    novel = {
        name: evaluate(GENERATED, train=TRAIN, settings=protocol_settings(name)).metrics["novel"].value
        for name in ("lemat", "omatg")
    }
    assert len(set(novel.values())) == 2


@pytest.mark.parametrize("name", ["cdvae", "diffcsp"])
def test_what_a_paper_has_not_is_neither_computed_nor_left_out_in_silence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise AssertionError("crystals are compared with each other")

    monkeypatch.setattr(evidence_module, "uniqueness", stop)
    found = evaluate(GENERATED, train=TRAIN, reference=GENERATED[::-1], paired=True, settings=protocol_settings(name))
    assert not {"unique", "novel", "unique_novel", "metre", "crmse"} & set(found.metrics)
    assert {"valid", "cov_recall", "wdist_density", "match_rate"} <= set(found.metrics)
    assert "unique" not in found.crystals[0].verdicts
    assert any("uniqueness, novelty" in line for line in found.settings["protocol_differs"])
    with pytest.raises(AssertionError, match="compared"):
        evaluate(GENERATED, settings=protocol_settings("omatg"))


def test_families_that_are_left_out_exist() -> None:
    names = {family.name for family in FAMILIES}
    assert all(set(protocol.leaves_out) <= names for protocol in PROTOCOLS.values())


def test_mattergen_takes_ordered_alloys_for_one() -> None:
    # CuAu in two orders: the same once copper and gold may take each other's place
    stripes = Structure(ALLOY.lattice, ["Au", "Cu"], ALLOY.frac_coords) * (1, 1, 2)
    layered = Structure(
        (ALLOY * (1, 1, 2)).lattice,
        ["Cu", "Cu", "Au", "Au"],
        [[0, 0, 0], [0.5, 0.5, 0.25], [0, 0, 0.5], [0.5, 0.5, 0.75]],
    )
    both = [stripes, layered]
    assert evaluate(both, settings=protocol_settings("mattergen")).metrics["unique"].value == 0.5
    assert evaluate(both, settings=protocol_settings("omatg")).metrics["unique"].value == 1.0


def test_composition_rules_are_those_of_the_papers() -> None:
    screening = pytest.importorskip("smact.screening")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        installed = [screening.smact_validity(s.composition.reduced_formula) for s in GENERATED]
    by_omatg = evaluate(GENERATED, settings=protocol_settings("omatg"))
    assert [row.verdicts["comp_valid"] for row in by_omatg.crystals] == installed
    # SMACT 2.2.1: magnetite is not neutral, the alloy passes, so do the salts
    by_cdvae = evaluate(GENERATED, settings=protocol_settings("cdvae"))
    assert by_cdvae.metrics["comp_valid"].value == 7 / 8 and by_cdvae.crystals[5].verdicts["comp_valid"] is False
    assert by_cdvae.metrics["struct_valid"].value == 7 / 8


def test_the_record_says_what_is_not_as_there_and_how_many_crystals_there_were() -> None:
    judged = evaluate([salt()], settings=protocol_settings("lemat"))
    # its default
    assert "unique_by_bonds" in judged.metrics
    found = judged.settings
    assert found["protocol"] == "lemat" and "matcher lemat" in found["protocol_sets"]
    assert "1 crystals are judged, 2,500 there" in found["protocol_differs"][0]
    assert any("BAWL" in line for line in found["protocol_differs"])
    assert "protocol" not in evaluate([salt()], settings=EvaluationSettings(fingerprints=False)).settings


def test_a_setting_against_the_protocol_is_found() -> None:
    assert clashes("mattergen", {"matcher": "lemat", "seed": 3, "threshold": 0.1}) == ["matcher"]
    with pytest.raises(ValueError, match="crystalite"):
        protocol_settings("nobody")
