"""Where the presets lie that the package carries. Nothing here loads more than their names."""

from pathlib import Path

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Presets that the package carries."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))
