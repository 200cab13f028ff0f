"""Random numbers from a seed: generators, and noise that depends on nothing but where it is used.

`CrystalNoise` draws by counter, not by order: the number that atom 3 of crystal 17 gets at step 5 is a hash of
(seed, crystal, step, atom), so the same crystals come out whatever the batch size, the device and the order of work.
No global generator is touched.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def make_generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by the whole of `key`, for instance (seed, epoch): equal keys, equal numbers."""
    state = 0
    for part in key:
        state = _splitmix64_int((state ^ (part & _MASK)) & _MASK)
    return torch.Generator(device=device).manual_seed(state >> 1)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Modules made within the block on the CPU start from weights that depend on `seed` alone.

    torch draws initial weights from its global generator; it is put back afterwards.

    >>> with seeded_weights(0):
    ...     first = torch.nn.Linear(2, 2)
    >>> with seeded_weights(0):
    ...     second = torch.nn.Linear(2, 2)
    >>> bool((first.weight == second.weight).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(make_generator(seed).get_state())
        yield


def splitmix64(x: Tensor) -> Tensor:
    """Integers (long) scattered over their whole range: the generator of Steele, Lea and Flood (OOPSLA 2014), one step.

    >>> splitmix64(torch.tensor([0])).item() == 0xE220A8397B1DCDAF - 2**64
    True
    """
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _splitmix64_int(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >= (1 << 63) else x


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


class CrystalNoise:
    """Noise for the crystals `crystal_ids` of the run `seed`, the same for any batch that they are drawn in.

    Args:
        seed: the run's seed.
        crystal_ids: (num_crystals,) long, each crystal's number within the run.
        num_rows: (num_crystals,) long, atoms or orbits; needed by the draws that give one row to each of them.

    >>> both = CrystalNoise(0, torch.tensor([4, 7])).uniform_per_crystal(3, stream=1)
    >>> alone = CrystalNoise(0, torch.tensor([7])).uniform_per_crystal(3, stream=1)
    >>> torch.equal(both[1], alone[0])
    True
    """

    def __init__(self, seed: int, crystal_ids: Tensor, num_rows: Tensor | None = None) -> None:
        run = _signed(_splitmix64_int(seed & _MASK))
        self._crystal_keys = splitmix64(crystal_ids.long() ^ run)
        self._row_keys: Tensor | None = None
        if num_rows is not None:
            crystal = torch.repeat_interleave(torch.arange(len(num_rows), device=num_rows.device), num_rows)
            first = (num_rows.cumsum(0) - num_rows)[crystal]
            within = torch.arange(len(crystal), device=num_rows.device) - first
            self._row_keys = splitmix64(self._crystal_keys[crystal] ^ splitmix64(within + 1))

    def uniform_per_crystal(self, width: int, *, stream: int) -> Tensor:
        """(num_crystals, width) float in (0, 1); another `stream` gives other numbers."""
        return _uniform(self._crystal_keys, width, stream)

    def normal_per_crystal(self, width: int, *, stream: int) -> Tensor:
        """(num_crystals, width) standard normal float."""
        return _normal(self._crystal_keys, width, stream)

    def uniform_per_row(self, width: int, *, stream: int) -> Tensor:
        """(num_rows, width) float in (0, 1)."""
        return _uniform(self._need_rows(), width, stream)

    def normal_per_row(self, width: int, *, stream: int) -> Tensor:
        """(num_rows, width) standard normal float."""
        return _normal(self._need_rows(), width, stream)

    def _need_rows(self) -> Tensor:
        if self._row_keys is None:
            raise ValueError("noise per row needs num_rows: CrystalNoise(seed, crystal_ids, num_rows)")
        return self._row_keys


def _uniform(keys: Tensor, width: int, stream: int) -> Tensor:
    columns = torch.arange(1, width + 1, device=keys.device)
    stream_key = _signed(_splitmix64_int((stream * 2 + 1) & _MASK))
    bits = splitmix64(splitmix64(keys ^ stream_key).unsqueeze(-1) ^ splitmix64(columns))
    # 23 bits and the half fill a float32's mantissa, so that neither 0 nor 1 comes out
    return (_shift_right(bits, 41).to(torch.float32) + 0.5) * (1.0 / (1 << 23))


def _normal(keys: Tensor, width: int, stream: int) -> Tensor:
    pairs = (width + 1) // 2
    uniform = _uniform(keys, 2 * pairs, stream)
    radius = torch.sqrt(-2.0 * torch.log(uniform[:, :pairs]))
    angle = 2.0 * math.pi * uniform[:, pairs:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[:, :width]
