"""Damaged CIFs: what we read is what pymatgen or ASE reads, or we refuse it."""

from __future__ import annotations

from pathlib import Path

from tests.campaign.second_readers import agreement, by_ase, by_pymatgen, by_us
from tests.campaign.targets import CIFS

FILES = 400


def test_sound_files_are_the_same_crystal_to_all_readers(tmp_path: Path) -> None:
    for text in CIFS:
        (tmp_path / "sound.cif").write_text(text)
        ours = by_us(tmp_path / "sound.cif")
        assert ours is not None
        assert all(other is not None and ours.is_like(other) for other in (by_pymatgen(text), by_ase(text))), text


def test_a_damaged_cif_is_never_another_crystal_than_other_readers_see(place: Path, factor: float) -> None:
    counts, differences = agreement(place, range(round(FILES * factor)))
    print(f"{sum(counts.values())} damaged CIFs: {dict(counts)}")
    assert counts["as another reader"] and not counts["raw"] and not counts["hang"]
    assert not differences, "\n".join(differences[:20])
