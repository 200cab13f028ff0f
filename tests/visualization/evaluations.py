"""Evaluations made by hand, so that the tests of figures and reports wait for no metric."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cdvae_kit.crystal.symmetry import crystal_system
from cdvae_kit.metrics.crystals import CrystalArrays, unusable
from cdvae_kit.metrics.evaluation_result import CrystalRow, Distribution, Evaluation, MetricValue
from cdvae_kit.metrics.metric import Measured
from cdvae_kit.metrics.registry import registered_metrics
from cdvae_kit.visualization.crystals.scene import element_symbol

SPITE = "<script>window.spite = 1</script>"
"""What a material id, a reason or a setting from a file may hold."""


def crystal(numbers: Sequence[int] = (55, 17), length: float = 4.0, seed: int = 0) -> CrystalArrays:
    """One cubic crystal with atoms anywhere."""
    generator = np.random.default_rng(seed)
    return CrystalArrays(length * np.eye(3), generator.random((len(numbers), 3)), np.array(numbers))


def metric(name: str, value: float | None, *, num_crystals: int = 9, note: str = "") -> MetricValue:
    """A number of that name, with what its metric says of it."""
    low, high = (None, None) if value is None else (max(0.0, value - 0.1), value + 0.1)
    return registered_metrics()[name].value_of(Measured(value, num_crystals, low, high, note))


def row(index: int, *, reason: str | None = None, **more: Any) -> CrystalRow:
    fields: dict[str, Any] = {
        "material_id": f"mp-{index}",
        "formula": "CsCl",
        "num_atoms": 2,
        "space_group": 221,
        "density": 3.0 + 0.1 * index,
        "volume_per_atom": 32.0,
        "verdicts": {"valid": reason is None},
        "values": {"nearest_structure": 0.01 * index},
    }
    return CrystalRow(index, reason=reason, **(fields | more))


def labels(name: str, generated: Sequence[Any], reference: Sequence[Any] | None) -> Distribution:
    theirs = None if reference is None else np.array(reference, dtype=object)
    return Distribution(name, "", np.array(generated, dtype=object), theirs, "categorical")


def evaluation(
    num_generated: int = 12, num_reference: int = 20, *, with_codes: bool = True, seed: int = 0, spite: str = ""
) -> Evaluation:
    """Every section filled, one crystal in four a failure; `spite` goes wherever text from a file can go."""
    generator = np.random.default_rng(seed)
    pool = np.array([3, 8, 17, 22, 55, 56])
    arrays = [crystal(generator.choice(pool, 5).tolist(), seed=i) for i in range(num_generated)]
    rows = []
    for i in range(num_generated):
        reasons = [
            None,
            None,
            None,
            f"Cs and Cl 0.{i % 10}1 A apart{spite}",
            None,
            None,
            None,
            f"it could not be built{spite}",
        ]
        reason = reasons[i % 8]
        if i % 8 == 7:
            arrays[i] = unusable(str(reason))
        number = int(generator.integers(1, 231))
        rows.append(
            row(
                i,
                reason=reason,
                material_id=f"mp-{i}{spite}",
                space_group=number,
                num_atoms=len(arrays[i].atomic_numbers),
            )
        )
    there = num_reference > 0

    def spread(mean: float, size: int) -> np.ndarray:
        return generator.normal(mean, 1.0, size)

    groups = (
        [int(g) for g in generator.integers(1, 231, num_generated)],
        [int(g) for g in generator.integers(75, 231, num_reference)],
    )
    atoms = [element_symbol(int(z)) for one in arrays for z in one.atomic_numbers]
    distributions = {
        "density": Distribution(
            "density", "g/cm³", spread(5, num_generated), spread(4, num_reference) if there else None, "continuous"
        ),
        f"gap{spite}": Distribution(
            f"gap{spite}", "eV", spread(1, num_generated), spread(1, num_reference) if there else None, "continuous"
        ),
        "space_group": labels("space_group", groups[0], groups[1] if there else None),
        "crystal_system": labels(
            "crystal_system",
            [crystal_system(g) for g in groups[0]],
            [crystal_system(g) for g in groups[1]] if there else None,
        ),
        "element": labels("element", atoms, ["Cs", "Cl", "O"] * num_reference if there else None),
    }
    metrics = [
        metric("n_gen", float(num_generated)),
        metric("struct_valid", 0.995, note=f"as published{spite}"),
        metric("comp_valid", 0.9),
        metric("valid", 0.75),
        metric("cov_recall", 0.6 if there else None),
        metric("cov_recall_joint", 0.2 if there else None),
        metric("wdist_density", 1.2),
        metric("jsd_elements", 0.3, note="bits"),
        metric("share_p1", 0.5),
    ]
    codes = (spread(0, 16 * num_generated).reshape(-1, 16), spread(0, 16 * num_reference).reshape(-1, 16))
    return Evaluation(
        {entry.name: entry for entry in metrics},
        rows,
        distributions,
        arrays,
        [crystal(seed=i) for i in range(num_reference)],
        {"composition_rule": "smact-2014", "seed": 0, "versions": {"cdvae-kit": "0"}, f"file{spite}": f"a{spite}"},
        codes if with_codes else None,
    )


def empty_evaluation() -> Evaluation:
    """Of no crystal, without a metric."""
    return Evaluation({}, [], {}, [], [], {})
