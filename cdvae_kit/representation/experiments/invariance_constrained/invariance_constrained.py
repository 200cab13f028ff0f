"""The experiment `invariance-constrained`: which transforms are symmetries, and what augmentation should do.

Hounie, Chamon and Ribeiro, "Automatic data augmentation via invariance-constrained learning" (ICML 2023, PMLR 202,
arXiv 2209.15031). Multipliers find the true symmetries of made-up data one at a time, all at once they do not, and on
few digits, upright ones and MNIST turned by any angle, the constraint is set against a uniform augmentation and none.
Their data sets are CIFAR, SVHN and ImageNet; the discovery by multipliers is ours to read from their method.

For data of one's own: `discover_invariances`, and `PrimalDual` for `fit`, in `methods`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdvae_kit.representation.methods.invariance_discovery import dual_ratios, mean_duals
from cdvae_kit.representation.panels import Bars, Lines, Panel
from cdvae_kit.representation.protocol import (
    Claim,
    Experiment,
    ExperimentResult,
    PartResult,
    averaged,
)
from cdvae_kit.typing import ShareDone

ONE_BY_ONE, AT_ONCE, IMAGES, ROTATED_MNIST = "one by one", "all at once", "images", "rotated MNIST"


class InvarianceConstrained(Experiment):
    """Multipliers of true and false symmetries, alone and together; digits."""

    name = "invariance-constrained"
    paper = (
        "Hounie, Chamon, Ribeiro, Automatic data augmentation via invariance-constrained learning, ICML 2023 "
        "(PMLR 202), arXiv 2209.15031"
    )
    summary = "multipliers tell true symmetries from false ones, one constraint at a time; augmentation of few digits"

    def parts(self, *, quick: bool) -> Sequence[str]:
        return [ONE_BY_ONE, AT_ONCE, IMAGES, ROTATED_MNIST]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        if part in (IMAGES, ROTATED_MNIST):
            from cdvae_kit.representation.experiments.invariance_constrained import on_images as on_images

            if part == ROTATED_MNIST:
                sizes = on_images.QUICK_ROTATED if quick else on_images.ROTATED
                return on_images.augment_rotated_mnist(sizes, seed, progress)
            return on_images.augment_digits(on_images.QUICK if quick else on_images.FULL, seed, progress)
        from cdvae_kit.representation.experiments.invariance_constrained import on_gaussians as on_gaussians

        run = on_gaussians.discover_one_by_one if part == ONE_BY_ONE else on_gaussians.discover_jointly
        return run(on_gaussians.QUICK if quick else on_gaussians.FULL, seed, progress)

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        from cdvae_kit.representation.experiments.invariance_constrained.on_gaussians import (
            FALSE,
            TOLERANCES,
            TRUE,
            UNCONSTRAINED,
            accuracy_arm,
            multiplier_arm,
        )
        from cdvae_kit.representation.experiments.invariance_constrained.on_images import (
            CONSTRAINED,
            NONE,
            PREFIX,
            UNIFORM,
        )

        claims = []
        for share in TOLERANCES:
            claims.append(
                Claim(
                    "largest multiplier of a true symmetry over the smallest of a false one, "
                    f"ε = {share:g} validation losses",
                    dual_ratios(
                        result,
                        [multiplier_arm(name, share) for name in TRUE],
                        [multiplier_arm(name, share) for name in FALSE],
                    ),
                    0.05,
                    "at most",
                )
            )
        for share in TOLERANCES:
            gains = [result.differences(accuracy_arm(name, share), f"{UNCONSTRAINED}: accuracy") for name in TRUE]
            claims.append(
                Claim(
                    f"accuracy under a true constraint less that without (mean over rotate and shift), ε = {share:g}",
                    averaged(gains),
                )
            )
        rotated: list[Claim] = []
        if PREFIX + CONSTRAINED in result.arms:
            rotated = [
                Claim(
                    f"{PREFIX}constrained augmentation, better than {what}",
                    result.differences(PREFIX + CONSTRAINED, PREFIX + what),
                )
                for what in (UNIFORM, NONE)
            ]
        joint = [[f"all four at once: {name}" for name in names] for names in (TRUE, FALSE)]
        return [
            *rotated,
            *claims,
            Claim(
                "all at once, the same ratio: it no longer tells them apart",
                dual_ratios(result, *joint),
                0.05,
            ),
            Claim(
                "all at once, accuracy lost against no constraint",
                result.differences(f"{UNCONSTRAINED}: accuracy", "all four at once: accuracy"),
                0.05,
            ),
            Claim("digits: constrained augmentation, better than none", result.differences(CONSTRAINED, NONE), 0.0),
            Claim(
                "digits: constrained augmentation, no worse than uniform",
                result.differences(CONSTRAINED, UNIFORM),
                0.0,
            ),
        ]

    def panels(self, result: ExperimentResult) -> Sequence[Panel]:
        from cdvae_kit.representation.experiments.invariance_constrained.on_gaussians import (
            FALSE,
            TOLERANCES,
            TRUE,
            UNCONSTRAINED,
            accuracy_arm,
        )
        from cdvae_kit.representation.experiments.invariance_constrained.on_images import (
            CONSTRAINED,
            NONE,
            ONE_FORWARD,
            PLAIN_DRAWS,
            PREFIX,
            UNIFORM,
            pictures,
        )

        def accuracies(share: float) -> dict[str, Sequence[float]]:
            names = {f"{name} ({'true' if name in TRUE else 'false'})": name for name in (*TRUE, *FALSE)}
            arms = {label: result.per_seed(accuracy_arm(name, share)) for label, name in names.items()}
            return {**arms, "all four at once": result.per_seed("all four at once: accuracy")}

        rotated = {arm.removeprefix(PREFIX): v for arm, v in result.arms.items() if arm.startswith(PREFIX)}
        images = {arm: result.per_seed(arm) for arm in (NONE, UNIFORM, CONSTRAINED, PLAIN_DRAWS, ONE_FORWARD)}
        return [
            *(
                Lines(
                    f"one constraint at a time, ε = {share:g} validation losses",
                    "share of the training",
                    "multiplier γ",
                    {
                        f"{name} ({'true' if name in TRUE else 'false'})": mean_duals(
                            result.details[ONE_BY_ONE], f"{name}, ε {share:g}"
                        )
                        for name in (*TRUE, *FALSE)
                    },
                )
                for share in TOLERANCES
            ),
            Lines(
                "all four at once",
                "share of the training",
                "multiplier γ",
                {
                    f"{name} ({'true' if name in TRUE else 'false'})": mean_duals(
                        result.details[AT_ONCE], f"all four: {name}"
                    )
                    for name in (*TRUE, *FALSE)
                },
            ),
            Bars(
                "what a constraint does to the accuracy",
                "test accuracy",
                accuracies(TOLERANCES[-1]),
                ("no constraint", result.mean(f"{UNCONSTRAINED}: accuracy")),
            ),
            Bars("few digits, strong operations", "test accuracy", images, ("none", result.mean(NONE))),
            *([Bars("MNIST turned by any angle", "test accuracy", rotated)] if rotated else []),
            pictures(),
        ]


EXPERIMENT = InvarianceConstrained()
