"""Modules that take what was stored under earlier names."""

import pytest
import torch
from torch import Tensor, nn

from cdvae_kit.nn.stored_names import RenamedModule


class Scale(RenamedModule):
    _EARLIER_NAMES = {"deviation": "std"}

    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("std", torch.zeros(()))


class Part(RenamedModule):
    _EARLIER_NAMES = {"inner": "linear", "bias": "shift.bias"}

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.shift = nn.Linear(1, 1)
        self.scale = Scale()


class Whole(nn.Module):
    """Its `bias` and `inner` are not those of the part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Part()
        self.inner = nn.Linear(1, 1)
        self.bias = nn.Parameter(torch.zeros(1))


def stored(whole: Whole) -> dict[str, Tensor]:
    """As an earlier version would have written it."""
    names = {
        "part.linear.weight": "part.inner.weight",
        "part.shift.bias": "part.bias",
        "part.scale.std": "part.scale.deviation",
    }
    state = whole.state_dict()
    return {names.get(name, name): torch.full_like(state[name], i + 1.0) for i, name in enumerate(sorted(state))}


def test_each_tensor_goes_to_its_name_of_now_however_deep() -> None:
    whole = Whole()
    content = stored(whole)
    kept = dict(content)
    whole.load_state_dict(content)
    assert content == kept
    for i, name in enumerate(sorted(whole.state_dict())):
        assert torch.equal(whole.state_dict()[name], torch.full_like(whole.state_dict()[name], i + 1.0)), name


def test_what_was_saved_since_is_loaded_too() -> None:
    first, second = Whole(), Whole()
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_a_file_with_both_names_is_refused() -> None:
    whole = Whole()
    with pytest.raises(RuntimeError, match=r"part\.scale\.deviation"):
        whole.load_state_dict({**whole.state_dict(), "part.scale.deviation": torch.ones(())})


def test_a_name_that_was_never_used_is_refused() -> None:
    whole = Whole()
    with pytest.raises(RuntimeError, match=r"part\.outer"):
        whole.load_state_dict({**whole.state_dict(), "part.outer.weight": torch.ones(1, 1)})
