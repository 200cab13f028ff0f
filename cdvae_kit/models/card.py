"""Model cards in the format of the Hugging Face Hub: a head of YAML that machines read, then text for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_TAGS = ("materials-science", "crystals")
_TAGS_OF_KIND = {
    "CDVAE": ("crystal-generation", "diffusion", "variational-autoencoder"),
    "PropertyPredictor": ("property-prediction",),
    "LatentPredictor": ("property-prediction",),
}
_USE = {
    "CDVAE": """from cdvae_kit import CDVAE

model = CDVAE.from_pretrained("hf:{repo}")
crystals = model.sample(16, seed=0)
structures = crystals.structures()  # pymatgen""",
    "PropertyPredictor": """from cdvae_kit import read
from cdvae_kit.models import PropertyPredictor

predictor = PropertyPredictor.from_pretrained("hf:{repo}")
found = predictor.predict(read("crystals.cif"))""",
    "LatentPredictor": """from cdvae_kit.models import LatentPredictor

predictor = LatentPredictor.from_pretrained("hf:{repo}")""",
}


def model_card(
    kind: str,
    repo: str,
    *,
    summary: str,
    config: Mapping[str, Any],
    card: Mapping[str, Any],
    license: str | None = None,
    text: str | None = None,
) -> str:
    """The text of a README.md.

    Args:
        kind: the class of the model.
        repo: `owner/name`.
        summary: what the model is, in one line.
        config: its settings.
        card: what is known of its weights: data, training, errors.
        license: an identifier of the Hub's, such as `mit` or `cc-by-4.0`; left out if None.
        text: a description of the author's own, which stands before the numbers.

    >>> text = model_card("CDVAE", "me/salts", summary="Salts.", config={"max_atoms": 4}, card={})
    >>> print(text.split("---")[1].strip())
    library_name: cdvae-kit
    tags:
    - materials-science
    - crystals
    - crystal-generation
    - diffusion
    - variational-autoencoder
    """
    tags = (*_TAGS, *_TAGS_OF_KIND[kind])
    head = [
        "---",
        *([f"license: {json.dumps(license)}"] if license is not None else []),
        "library_name: cdvae-kit",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]
    training = dict(card.get("training", {}))
    # the settings of a run are as long as all else together
    settings = training.pop("config", None)
    facts = {name: value for name, value in card.items() if name != "training"} | training
    body = [
        f"# {repo.rpartition('/')[2]}",
        summary,
        *([text.strip()] if text else []),
        "## Use",
        f"```python\n{_USE[kind].format(repo=repo)}\n```",
        *(["## Weights", "\n".join(f"* {name}: {_shown(value)}" for name, value in facts.items())] if facts else []),
        "## Settings",
        f"```json\n{json.dumps(dict(config), indent=2)}\n```",
        *(["Training:", f"```json\n{json.dumps(settings, indent=2)}\n```"] if settings else []),
        "Nothing that these weights make is relaxed unless asked for, and a valid crystal need not be stable.",
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(body) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    return f"{value:.5g}" if isinstance(value, float) else str(value)
