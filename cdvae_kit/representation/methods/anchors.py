"""Which samples serve as anchors of relative representations: four ways to choose them.

Moschella et al. (ICLR 2023, arXiv 2209.15430) draw them uniformly, and compare farthest points and k-means.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

AnchorMethod = Literal["uniform", "stratified", "farthest", "kmeans"]


def select_anchors(
    features_or_size: Tensor | int,
    num_anchors: int,
    *,
    method: AnchorMethod = "uniform",
    labels: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """(num_anchors,) long: the samples that serve as anchors, sorted, none twice.

    Choose them once, from training samples, and give the same to every encoder: anchors chosen in each space anew would
    be other samples, and nothing could be compared.

    Args:
        features_or_size: (n, d), in which farthest points and k-means are looked for; for the others n will do.
        num_anchors: 1 to n.
        method: `uniform`; `stratified`: the classes' shares are kept, and none is left out while there is room;
            `farthest`: each the farthest from those before it, the first at random; `kmeans`: the samples nearest to
            the centres. Distances are Euclidean: give `unit_rows(features)` for angles.
        labels: (n,) classes, for `stratified`.
        generator: of the draws.

    >>> from cdvae_kit.seeding import make_generator
    >>> select_anchors(torch.tensor([[0.0], [0.1], [5.0], [5.1]]), 2, method="kmeans", generator=make_generator(0)) // 2
    tensor([0, 1])
    """
    size = features_or_size if isinstance(features_or_size, int) else len(features_or_size)
    if not 1 <= num_anchors <= size:
        raise ValueError(f"{num_anchors} anchors among {size} samples; there must be 1 to {size}")
    if method == "uniform":
        chosen = torch.randperm(size, generator=generator)[:num_anchors]
    elif method == "stratified":
        if labels is None or labels.shape != (size,):
            found = None if labels is None else tuple(labels.shape)
            raise ValueError(f"stratified anchors need a label for each of {size} samples, got {found}")
        chosen = _stratified(labels.cpu(), num_anchors, generator)
    elif method in ("farthest", "kmeans"):
        if isinstance(features_or_size, int) or features_or_size.ndim != 2:
            raise ValueError(f"anchors by {method!r} are chosen from features (n, d), not from a number of samples")
        features = features_or_size.detach().double().cpu()
        if not bool(torch.isfinite(features).all()):
            raise ValueError(f"{int((~torch.isfinite(features)).any(1).sum())} samples have features not finite")
        choose = _farthest if method == "farthest" else _nearest_to_centres
        chosen = choose(features, num_anchors, generator)
    else:
        raise ValueError(f"method must be 'uniform', 'stratified', 'farthest' or 'kmeans', got {method!r}")
    return chosen.sort().values


def _stratified(labels: Tensor, num_anchors: int, generator: torch.Generator) -> Tensor:
    classes, sizes = labels.unique(return_counts=True)
    # a random order settles ties, so that the first classes are not always preferred
    order = torch.randperm(len(classes), generator=generator)
    classes, sizes = classes[order], sizes[order]
    seats = torch.zeros_like(sizes)
    if num_anchors >= len(classes):
        seats += 1
    for _ in range(num_anchors - int(seats.sum())):
        # Sainte-Laguë: shares as near to proportional as integers allow
        claim = torch.where(seats < sizes, sizes / (2.0 * seats + 1.0), -1.0)
        seats[claim.argmax()] += 1
    chosen = []
    for label, count in zip(classes, seats.tolist(), strict=True):
        members = (labels == label).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


def _farthest(features: Tensor, num_anchors: int, generator: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(features), (), generator=generator))]
    distance = (features - features[chosen[0]]).norm(dim=1)
    distance[chosen[0]] = -1.0
    while len(chosen) < num_anchors:
        latest = int(distance.argmax())
        chosen.append(latest)
        distance = torch.minimum(distance, (features - features[latest]).norm(dim=1))
        # below every distance: of samples that coincide none is taken twice
        distance[latest] = -1.0
    return torch.tensor(chosen)


def _nearest_to_centres(features: Tensor, num_anchors: int, generator: torch.Generator) -> Tensor:
    from sklearn.cluster import KMeans

    state = int(torch.randint(2**31 - 1, (), generator=generator))
    # samples that coincide are one point to k-means: more centres than points would be a complaint
    points = len(features.unique(dim=0))
    centres = KMeans(min(num_anchors, points), n_init=1, random_state=state).fit(features.numpy()).cluster_centers_
    distances = torch.cdist(torch.from_numpy(centres).double(), features)
    chosen: list[int] = []
    for row in distances:
        # two centres may have one nearest sample: the second takes the next
        row[chosen] = torch.inf
        chosen.append(int(row.argmin()))
    free = torch.ones(len(features), dtype=torch.bool)
    free[chosen] = False
    rest = free.nonzero().flatten()
    more = torch.randperm(len(rest), generator=generator)[: num_anchors - len(chosen)]
    return torch.cat([torch.tensor(chosen), rest[more]])
