"""Damaged CIFs: what we read is what pymatgen or ASE reads, or we refuse it."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from tests.campaign.second_readers import SOUND, by_ase, by_pymatgen, by_us, compare

FILES = 400
FILES_OF_A_ROUND = 500


@pytest.mark.parametrize("text", SOUND, ids=lambda text: text.split()[0])
def test_sound_files_are_the_same_crystal_to_all_readers(text: str, tmp_path: Path) -> None:
    (tmp_path / "sound.cif").write_text(text)
    ours = by_us(tmp_path / "sound.cif")
    assert ours is not None
    # ASE does not read each of them
    others = [other for other in (by_pymatgen(text), by_ase(text)) if other is not None]
    assert others
    for other in others:
        assert ours.is_like(other), (ours, other)


def test_a_damaged_cif_is_never_another_crystal_than_other_readers_see(
    place: Path, factor: float, first_seed: int
) -> None:
    counts: Counter[str] = Counter()
    told: defaultdict[str, list[str]] = defaultdict(list)
    last = first_seed + round(FILES * factor)
    for start in range(first_seed, last, FILES_OF_A_ROUND):
        compare(place, range(start, min(start + FILES_OF_A_ROUND, last)), counts, told)
        print(f"{counts.total()} damaged CIFs: {dict(counts)}")
        print(*told["different"], sep="\n")
    print(*told["as one of two"], *told["as its formula says"], sep="\n")
    assert counts["as both"] and not counts["raw"] and not counts["hang"] and not counts["memory"]
    assert not told["different"], "\n".join(told["different"][:20])
