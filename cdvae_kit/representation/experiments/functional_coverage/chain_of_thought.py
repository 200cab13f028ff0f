"""A bridge that is said aloud, and one that hidden states know: two parts of `functional_coverage`.

Chang et al. (2025): a network that says f₁(x₁, x₂) before the label needs less data for two hops; where the task is no
tree, since x₂ acts twice, that helps less. Without it the state at x₂ is looked at: are those of pairs with one bridge
more alike than those of others?
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.datasets.two_hop import Split, Structure, TwoHopTask
from cdvae_kit.representation.experiments.functional_coverage.token_learners import TokenTransformer
from cdvae_kit.representation.methods.encoder import Objective, unit_rows
from cdvae_kit.representation.methods.fitting import FitSettings, Supervision, fit
from cdvae_kit.representation.protocol import PartResult
from cdvae_kit.seeding import seeded_weights
from cdvae_kit.typing import ShareDone

STRUCTURES: tuple[Structure, ...] = ("two_hop", "non_tree")
SAID, SILENT = "bridge said", "bridge not said"


class ThinksAloud(nn.Module, Objective):
    """A transformer that says the bridge as a token of its own, and then the label.

    The batch is (tokens (b, arity + 1) with the true bridge last, labels (b,)).

    Args:
        transformer: of one position more than the task has.
        num_tokens: which the bridge and the label are among.
    """

    def __init__(self, transformer: TokenTransformer, num_tokens: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = nn.Linear(transformer.out_features, num_tokens)

    def loss(self, batch: tuple[Tensor, Tensor], *, generator: torch.Generator) -> dict[str, Tensor]:
        tokens, labels = batch
        states = self.transformer.states(tokens)
        bridge = functional.cross_entropy(self.head(states[:, -2]), tokens[:, -1])
        label = functional.cross_entropy(self.head(states[:, -1]), labels)
        return {"loss": 0.5 * (bridge + label), "bridge": bridge, "label": label}

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (b, num_tokens) of the label of tokens (b, arity), after the bridge that the network itself says."""
        # no state looks ahead, so that what stands in for the bridge changes none before it
        blank = torch.cat([tokens, tokens[:, :1]], dim=1)
        bridge = self.head(self.transformer.states(blank)[:, -2]).argmax(1)
        logits: Tensor = self.head(self.transformer.states(torch.cat([tokens, bridge[:, None]], dim=1))[:, -1])
        return logits


def compare_thought(
    num_tokens: int, num_train: int, settings: FitSettings, seed: int, progress: ShareDone | None
) -> PartResult:
    """Accuracy in-domain with and without the bridge said, on the two-hop task and on the one that is no tree."""
    values: dict[str, float] = {}
    for place, structure in enumerate(STRUCTURES):
        task = TwoHopTask(num_tokens, structure, seed)
        split = task.split(num_train)
        for aloud in (True, False):
            model = train_transformer(task, split, settings, aloud=aloud, seed=seed)
            values[thought_arm(structure, aloud=aloud)] = in_domain_accuracy(model, split)
            if progress is not None:
                progress((2 * place + 1 + (not aloud)) / (2 * len(STRUCTURES)))
    return PartResult(values)


def thought_arm(structure: Structure, *, aloud: bool) -> str:
    """The arm of a structure, with the bridge said or not."""
    return f"{structure}, {SAID if aloud else SILENT}: in-domain"


def train_transformer(
    task: TwoHopTask, split: Split, settings: FitSettings, *, aloud: bool, seed: int
) -> ThinksAloud | Supervision:
    """A transformer that says the bridge, or one that does not, on the training inputs of a split."""
    with seeded_weights(seed):
        transformer = TokenTransformer(arity=task.arity + aloud, num_tokens=task.num_tokens)
        model: ThinksAloud | Supervision = (
            ThinksAloud(transformer, task.num_tokens) if aloud else Supervision(transformer, task.num_tokens)
        )
    tokens = split.train_tokens
    if aloud:
        tokens = torch.cat([tokens, task.bridges(tokens)[:, None]], dim=1)
    fit(model, (tokens, split.train_labels), settings, seed=seed)
    return model


def in_domain_accuracy(model: nn.Module, split: Split) -> float:
    """Of the test inputs all of whose facts occur in training."""
    inside = split.unseen_facts == 0
    tokens, labels = split.test_tokens[inside], split.test_labels[inside]
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in tokens.split(4096)])
    return float((answers == labels).double().mean())


def bridge_cosine(transformer: TokenTransformer, task: TwoHopTask, tokens: Tensor) -> float:
    """The mean cosine of states at x₂ between pairs (x₁, x₂) of one bridge, less that between pairs of two bridges.

    Args:
        transformer: whose states no later token changes.
        task: that says the bridges.
        tokens: (n, arity) inputs whose pairs are looked at, each pair once.
    """
    pairs, first = tokens[:, :2].unique(dim=0, return_inverse=True)
    whole = tokens.new_zeros(len(pairs), tokens.shape[1])
    whole[first] = tokens
    transformer.eval()
    with torch.no_grad():
        states = unit_rows(transformer.states(whole)[:, 1].double())
    bridges = task.bridges(whole)
    alike = states @ states.T
    same = (bridges[:, None] == bridges) & ~torch.eye(len(bridges), dtype=torch.bool)
    return float(alike[same].mean() - alike[bridges[:, None] != bridges].mean())
