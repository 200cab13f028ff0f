"""An experiment that takes no time and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from cdvae_kit.representation.protocol import Claim, Experiment, ExperimentResult, PartResult, ShareDone


class Toy(Experiment):
    name = "toy"
    paper = "Nobody, of nothing"
    summary = "one arm against another"

    def __init__(
        self, *, dies_at: tuple[str, int] | None = None, error: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self.dies_at = dies_at
        self.error = error
        self.calls: list[tuple[str, int, bool]] = []

    def parts(self, *, quick: bool) -> Sequence[str]:
        return ["first", "Second, of two"]

    def run(self, part: str, seed: int, *, quick: bool, progress: ShareDone | None = None) -> PartResult:
        self.calls.append((part, seed, quick))
        if (part, seed) == self.dies_at:
            raise self.error("killed")
        if progress is not None:
            progress(0.5)
        if part == "first":
            return PartResult({"none": 0.25 * seed, "best": 1.0 + seed}, {"curve": [1, 2, seed]})
        return PartResult({"nan": float("nan")})

    def claims(self, result: ExperimentResult) -> Sequence[Claim]:
        return [
            Claim("best beats none", result.differences("best", "none"), 0.5),
            Claim("nan is small", result.per_seed("nan"), 0.5, "at most"),
        ]


EXPERIMENT = Toy()
