"""What this half asks of an encoder and of an objective, small encoders, and the way to bring one's own.

Any `torch.nn.Module` that maps a batch to (b, d) is an encoder; `as_encoder` adds `out_features` where it lacks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cdvae_kit.nn.mlp import mlp
from cdvae_kit.transforms.base import join_samples, num_samples, select_samples

if TYPE_CHECKING:
    from cdvae_kit.crystal import CrystalBatch
    from cdvae_kit.models import CDVAE


@runtime_checkable
class Encoder(Protocol):
    """A batch to features (b, out_features)."""

    out_features: int

    def __call__(self, batch: Any) -> Tensor: ...


@runtime_checkable
class LocalEncoder(Encoder, Protocol):
    """An encoder that also gives the features before they are pooled: of positions, atoms, nodes.

    Where these are not as wide as the pooled ones, an attribute `local_width` says how wide they are.
    """

    def local_features(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Features (points, c), and the sample (points,) long that each belongs to, in order."""
        ...


class Objective(Protocol):
    """What `fitting.fit` trains: a module (`torch.nn.Module`) with a loss.

    A class that names this protocol among its bases after `nn.Module` inherits an `after_step` that does nothing.
    """

    def loss(self, batch: Any, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms by name, `loss` among them; `generator` is for views and masks."""
        ...

    def after_step(self, step: int, num_steps: int) -> None:
        """Called after step `step`, 0 .. num_steps − 1: averages, queues, dual variables, curricula."""
        return

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...


class ConvEncoder(nn.Module):
    """Blocks of 3×3 convolution, batch normalisation and ReLU with 2×2 pooling between, then the mean over positions.

    The last width is the number of features: (24, 48, 64) sees 18 pixels.

    >>> encoder = ConvEncoder(in_channels=3, widths=(8, 16))
    >>> encoder(torch.zeros(2, 3, 8, 8)).shape, encoder.local_features(torch.zeros(2, 3, 8, 8))[0].shape
    (torch.Size([2, 16]), torch.Size([32, 16]))
    """

    def __init__(self, *, in_channels: int, widths: Sequence[int] = (24, 48, 64), dimensions: int = 2) -> None:
        super().__init__()
        if dimensions not in (1, 2) or not widths:
            raise ValueError(f"expected 1 or 2 dimensions and at least one width, got {dimensions} and {list(widths)}")
        convolution, normalisation = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[dimensions - 1]
        # a series loses its length slowly under kernels of 3
        kernel = 5 if dimensions == 1 else 3
        blocks: list[nn.Module] = []
        before = in_channels
        for i, width in enumerate(widths):
            blocks += [convolution(before, width, kernel, padding=kernel // 2, bias=False), normalisation(width)]
            if i + 1 < len(widths):
                # before the ReLU, which gives the same and has less to do
                blocks.append(nn.MaxPool1d(2) if dimensions == 1 else nn.MaxPool2d(2))
            blocks.append(nn.ReLU())
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.out_features = widths[-1]

    def forward(self, batch: Tensor) -> Tensor:
        return self.blocks(batch).flatten(2).mean(-1)

    def local_features(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        features = self.blocks(batch).flatten(2).transpose(1, 2)
        num, positions, width = features.shape
        sample = torch.arange(num, device=features.device).repeat_interleave(positions)
        return features.reshape(num * positions, width), sample


class MLPEncoder(nn.Module):
    """A multilayer perceptron on the flattened sample.

    >>> MLPEncoder([4, 8, 2])(torch.zeros(3, 2, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = mlp(widths)
        self.out_features = widths[-1]

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch.flatten(1))


class SetTransformer(nn.Module):
    """Attention between the points of a crystal's cell, on Cartesian coordinates, and the mean over them.

    Blind to the order of atoms, and to no other symmetry: rotations, the choice of the cell and of the origin all
    change its output. That is its use: what a network must learn can be seen to be learnt.

    Args:
        width: of the features.
        num_layers: of attention.
        num_heads: a divisor of the width.
        length: the coordinates are divided by it, angstrom.
    """

    def __init__(self, *, width: int = 64, num_layers: int = 2, num_heads: int = 4, length: float = 4.0) -> None:
        super().__init__()
        self.element = nn.Embedding(119, width)
        self.position = nn.Linear(3, width)
        self.cell = nn.Linear(9, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, num_heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.length = length
        self.out_features = width

    def forward(self, batch: CrystalBatch) -> Tensor:
        h, present = self._points(batch)
        weights = present[..., None].to(h.dtype)
        return (h * weights).sum(1) / weights.sum(1)

    def local_features(self, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
        h, present = self._points(batch)
        return h[present], batch.batch

    def _points(self, batch: CrystalBatch) -> tuple[Tensor, Tensor]:
        dtype = self.cell.weight.dtype
        rows, within = batch.batch, torch.arange(len(batch.batch), device=batch.batch.device)
        within = within - batch.ptr[rows]
        largest = int(batch.num_atoms.max()) if len(batch) else 0
        present = torch.arange(largest, device=rows.device) < batch.num_atoms[:, None]
        tokens = (
            self.element(batch.atomic_numbers)
            + self.position(batch.cart_coords.to(dtype) / self.length)
            + self.cell(batch.lattice.to(dtype).flatten(1) / self.length)[rows]
        )
        h = tokens.new_zeros(len(batch), largest, tokens.shape[-1])
        h = h.index_put((rows, within), tokens)
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=~present)
        return self.norm(h), present


class CrystalVAEEncoder(nn.Module):
    """The mean mu of a CDVAE's posterior as features: of crystals in the description that it was trained on.

    Args:
        model: trained, or fresh.
    """

    def __init__(self, model: CDVAE) -> None:
        super().__init__()
        self.model = model
        self.out_features = model.config.latent_dim

    @classmethod
    def from_pretrained(cls, name_or_path: str, *, device: str = "auto") -> CrystalVAEEncoder:
        """The encoder of a checkpoint, or of weights that the package carries."""
        from cdvae_kit.models import CDVAE

        return cls(CDVAE.from_pretrained(name_or_path, device=device))

    def forward(self, batch: CrystalBatch) -> Tensor:
        batch = self.model.prepare(batch)
        most = self.model.config.max_atoms
        if len(batch) and int(batch.num_atoms.max()) > most:
            larger = torch.nonzero(batch.num_atoms > most).flatten().tolist()
            raise ValueError(
                f"the model was made for at most {most} atoms a cell, got {int(batch.num_atoms.max())} (crystals "
                f"{larger[:5]} of {len(batch)}): give primitive cells (crystal_sensitivity.PrimitiveCells) or another "
                "model"
            )
        mu, _ = self.model.posterior(batch, self.model.graph(batch))
        return mu


class _WithWidth(nn.Module):
    def __init__(self, module: nn.Module, out_features: int) -> None:
        super().__init__()
        self.module = module
        self.out_features = out_features

    def forward(self, batch: Any) -> Tensor:
        features = self.module(batch)
        return features.flatten(1) if features.ndim > 2 else features


def as_encoder(module: nn.Module, example: Any) -> Encoder:
    """The module itself if it knows its `out_features`, else wrapped after a look at what `example` gives.

    Args:
        module: a batch to one row a sample; rows of more than one dimension are flattened.
        example: a batch of at least one sample.
    """
    if isinstance(module, Encoder) and isinstance(module.out_features, int):
        return module
    features = embed(module, example)
    if features.shape[0] != num_samples(example):
        raise ValueError(
            f"an encoder gives one row a sample: {num_samples(example)} samples gave a tensor {tuple(features.shape)}"
        )
    return _WithWidth(module, features.flatten(1).shape[1])


def embed(encoder: Any, batch: Any, *, batch_size: int = 512) -> Tensor:
    """Features (n, d) of all samples, in evaluation mode and without gradient; afterwards the mode is as before.

    Args:
        encoder: an `Encoder`; a torch module is in evaluation mode meanwhile.
        batch: tensor, crystals, or a tuple that the encoder takes.
        batch_size: samples at a time.
    """
    total = num_samples(batch)
    if total == 0:
        raise ValueError("there are no samples to embed")
    with evaluation_mode(encoder), torch.no_grad():
        parts = [
            encoder(select_samples(batch, torch.arange(start, min(start + batch_size, total))))
            for start in range(0, total, batch_size)
        ]
    features = join_samples(parts)
    if not isinstance(features, Tensor):
        raise TypeError(f"an encoder gives a tensor, got {type(features).__name__}")
    return features


@contextmanager
def evaluation_mode(network: Any) -> Iterator[None]:
    """Every part of a module is in evaluation mode within the block, and as it was after it; others are left alone."""
    modes = {m: m.training for m in network.modules()} if isinstance(network, nn.Module) else {}
    if isinstance(network, nn.Module):
        network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def unit_rows(features: Tensor) -> Tensor:
    """Each row over its length; a row of zeros stays."""
    return functional.normalize(features, dim=-1)
