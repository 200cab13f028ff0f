"""The pages for one's own encoder: short, and one for each method. That their code runs is tested with all pages."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "guides" / "own_encoder").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_at_most_25_lines_of_code_and_says_where_ones_own_goes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 25 and max(map(len, text.splitlines())) <= 125
    assert "your" in text and "assert" in text


def test_there_is_a_page_for_each_of_the_eight_papers() -> None:
    assert len(PAGES) == 8
