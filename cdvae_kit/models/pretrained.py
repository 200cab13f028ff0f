"""Checkpoints of whole models: what they share, the weights that the package carries, and the Hugging Face Hub."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cdvae_kit.io import carried, hub
from cdvae_kit.io.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cdvae_kit.models.card import model_card
from cdvae_kit.models.config import CDVAEConfig
from cdvae_kit.nn.stored_names import RenamedModule
from cdvae_kit.typing import OwnHelp

Settings = TypeVar("Settings", bound=BaseModel)
Model = TypeVar("Model", bound=nn.Module)


class PretrainedModule(RenamedModule, metaclass=OwnHelp):
    """A network with its settings and a card, which goes to folders and to the Hugging Face Hub."""

    config: Any
    card: dict[str, Any]

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False) -> None:
        """Writes weights, configuration and card; refuses an existing folder unless `overwrite`.

        Args:
            folder: where to.
            overwrite: replace the checkpoint that is there.
            half: trained weights in float16, for half the space; statistics stay as they are. Loading gives float32.
        """
        tensors = self.state_dict()
        if half:
            tensors |= {name: weight.detach().half() for name, weight in self.named_parameters()}
        save(folder, self.config, tensors, self.card, overwrite=overwrite)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        license: str | None = None,
        text: str | None = None,
        half: bool = False,
        token: str | None = None,
        message: str = "Upload a model of cdvae_kit",
    ) -> str:
        """The address of the commit that has put this model on the Hub, with a card; `hf:owner/name` loads it.

        Args:
            repo: `owner/name`; it is made where there is none.
            private: of a new repository: only its owner sees it.
            license: of the weights, an identifier of the Hub's such as `mit` or `cc-by-4.0`.
            text: a description for the card, beside what it says by itself.
            half: see `save_pretrained`.
            token: the one that `hf auth login` keeps if None.
            message: of the commit.
        """
        name = repo.removeprefix(carried.HUB_PREFIX)
        kind = cast(carried.ModelKind, type(self).__name__)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            self.save_pretrained(folder, half=half)
            card = model_card(
                kind,
                name,
                summary=f"{carried.KINDS[kind].capitalize()} of cdvae_kit: {self._contents()}.",
                config=self.config.model_dump(mode="json"),
                card=self.card,
                license=license,
                text=text,
            )
            (folder / hub.CARD_NAME).write_text(card, encoding="utf-8")
            return hub.publish_checkpoint(folder, name, private=private, token=token, message=message)

    def num_parameters(self) -> int:
        """Trained numbers, all members of an ensemble together."""
        return sum(weight.numel() for weight in self.parameters())

    def _contents(self) -> str:
        """What the model is, in a few words."""
        millions = self.num_parameters() / 1e6
        size = f"{millions:.1f} million parameters" if millions >= 0.95 else f"{self.num_parameters():,} parameters"
        data = self.card.get("data", {})
        name = data.get("name") if isinstance(data, Mapping) else None
        return f"{size}, trained on {name}" if name else size

    def __repr__(self) -> str:
        device = next(self.parameters()).device
        return f"{type(self).__name__}({self._contents()}, on {device})"

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._modules, *self._buffers})


def _home() -> Path:
    return carried.home_of("CDVAE")


def pretrained_names() -> list[str]:
    """Names of the models that the package carries, for `CDVAE.from_pretrained`."""
    return carried.carried_names(_home())


def predictor_names(folder: str) -> list[str]:
    """Names of the predictors that the package carries in `folder`, one of the folders beside the models' weights."""
    return carried.carried_names(_home().parent / folder)


def locate(name_or_path: str | os.PathLike[str], *, folder: str | None = None) -> Path:
    """The folder of a checkpoint, fetched from the Hugging Face Hub for `hf:owner/name`; see `cdvae_kit.io.carried`.

    Args:
        name_or_path: a folder, a name of the package's own, or a repository of the Hub.
        folder: where the names are looked up, as in `predictor_names`; the models' weights unless given.
    """
    if carried.is_reference(name_or_path):
        return hub.fetch_checkpoint(str(name_or_path))
    return carried.locate(name_or_path, _home() if folder is None else _home().parent / folder)


def load(name_or_path: str | os.PathLike[str]) -> tuple[CDVAEConfig, dict[str, Tensor], dict[str, Any]]:
    """Configuration, tensors in float32, and card of a CDVAE's checkpoint."""
    return load_settings(name_or_path, CDVAEConfig, expected=("known_elements",))


def load_settings(
    name_or_path: str | os.PathLike[str],
    schema: type[Settings],
    *,
    expected: tuple[str, ...],
    folder: str | None = None,
) -> tuple[Settings, dict[str, Tensor], dict[str, Any]]:
    """As `load`, of a model whose configuration is a `schema`.

    Args:
        name_or_path: see `locate`.
        schema: checks the configuration.
        expected: tensors that every such model has.
        folder: see `locate`.
    """
    place = locate(name_or_path, folder=folder)
    if (kind := schema.__name__.removesuffix("Config")) in carried.KINDS:
        carried.refuse_other_kind(place, kind)
    checkpoint = load_checkpoint(place, expected_tensors=expected)
    try:
        config = schema.model_validate(checkpoint.metadata["config"])
    except (KeyError, ValidationError, RecursionError) as error:
        raise CheckpointError(
            f"{place} holds no {schema.__name__.removesuffix('Config')} configuration that this version understands: "
            f"{error}"
        ) from error
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in checkpoint.tensors.items()
    }
    card = checkpoint.metadata.get("card", {})
    if not isinstance(card, Mapping):
        raise CheckpointError(f"{place} has a card that is no table; copy or download it again")
    return config, tensors, dict(card)


def build(
    make: Callable[[Settings], Model],
    config: Settings,
    tensors: Mapping[str, Tensor],
    source: str | os.PathLike[str],
) -> Model:
    """The model of a configuration, for the weights beside it.

    Raises:
        CheckpointError: no model comes of it, or one of another size than the weights: before it takes the memory.
    """
    num_elements = sum(tensor.numel() for tensor in tensors.values())
    limits = _checkpoint_limits.get()
    for name, value in _numbers(config.model_dump()):
        last = name.rpartition(".")[2]
        limit = "max_layers" if last in _REPEATED else "max_cutoff" if last == "cutoff" else "max_width"
        if last in _REPEATED and value > len(tensors):
            raise CheckpointError(
                f"{source} is not loaded: its configuration has {name}={value}, for which {len(tensors)} tensors are "
                "too few; the configuration belongs to other weights, or is damaged"
            )
        if not value <= getattr(limits, limit):
            raise CheckpointError(
                f"{source} is not loaded: its configuration has {name}={value}, at most {getattr(limits, limit):g} is "
                f"taken; the configuration is damaged, or {_how_to_raise(limit)}"
            )
    try:
        with _Allowance(_FACTOR * num_elements + limits.max_constants):
            return make(config)
    except _AllowanceError as error:
        raise CheckpointError(
            f"{source} is not loaded: a model of its configuration has more than {error} numbers, its weights have "
            f"{num_elements}; the configuration belongs to other weights or is damaged, or "
            f"{_how_to_raise('max_constants')}"
        ) from error
    except (ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{source} is not loaded: no model comes of its configuration: {error}") from error


_REPEATED = {"num_layers", "num_convolutions", "num_frame_layers", "num_members", "num_blocks"}
_FACTOR = 4


class CheckpointLimits(NamedTuple):
    """What the configuration of a checkpoint may ask for. Raise what a refusal names, where the model is really so.

    Attributes:
        max_layers: layers of a network, and members of an ensemble.
        max_width: any other number of a configuration.
        max_cutoff: angstrom, within which atoms are neighbours.
        max_constants: numbers that are made with a model beyond four times those of its weights. The largest model that
            the package carries draws 38 million.
    """

    max_layers: int = 256
    max_width: int = 1 << 16
    max_cutoff: float = 100.0
    max_constants: int = 1 << 28


_DEFAULT_LIMITS = CheckpointLimits()
_checkpoint_limits: ContextVar[CheckpointLimits] = ContextVar("checkpoint_limits", default=_DEFAULT_LIMITS)


@contextmanager
def checkpoint_limits(limits: CheckpointLimits) -> Iterator[None]:
    """Within the block checkpoints are loaded under these limits."""
    token = _checkpoint_limits.set(limits)
    try:
        yield
    finally:
        _checkpoint_limits.reset(token)


def _how_to_raise(limit: str) -> str:
    return f"raise the limit {limit} (--limit {limit}=N before the command, a checkpoint_limits block from Python)"


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value


class _AllowanceError(Exception):
    pass


class _Allowance(TorchDispatchMode):
    """Refuses the tensor with which a block comes to have made more than so many numbers, before it is made."""

    def __init__(self, num_elements: int) -> None:
        super().__init__()
        self._most = num_elements
        self._made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._count(_asked_for(func.__name__, args))
        found = func(*args, **(kwargs or {}))
        if not func._schema.is_mutable:
            tensors = found if isinstance(found, tuple | list) else [found]
            self._made += sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))
            self._count(0)
        return found

    def _count(self, num_more: int) -> None:
        if self._made + num_more > self._most:
            raise _AllowanceError(self._most)


def _asked_for(name: str, args: Sequence[Any]) -> int:
    """How many numbers an operation that makes a tensor of given sizes is to make; 0 for other operations."""
    kind = name.partition(".")[0]
    if kind in ("arange", "linspace", "logspace", "randperm", "eye"):
        numbers = [abs(int(arg)) for arg in args if isinstance(arg, int | float)]
        largest = max(numbers, default=0)
        return largest**2 if kind == "eye" else largest
    if kind in ("empty", "zeros", "ones", "full", "rand", "randn", "randint", "repeat", "new_empty", "new_zeros"):
        sizes = next((arg for arg in args if isinstance(arg, list | tuple)), ())
        times = args[0].numel() if kind == "repeat" else 1
        return times * math.prod(int(size) for size in sizes)
    return 0


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Loads the tensors into the model; `CheckpointError` where names or shapes do not fit its configuration."""
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {source} do not fit the configuration beside them: {error}") from error


def save(
    folder: str | os.PathLike[str],
    config: BaseModel,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Writes a checkpoint folder."""
    save_checkpoint(
        folder, tensors, {"config": config.model_dump(mode="json"), "card": dict(card)}, overwrite=overwrite
    )


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA where there is one, then Apple's MPS, then the CPU; else the device of that name."""
    if name != "auto":
        device = torch.device(name)
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not there.get(device.type, True):
            raise ValueError(f"device {name!r} is not available on this machine; use 'auto' or 'cpu'")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
