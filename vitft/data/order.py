"""The order of samples, and every random number of a run.

A sample index counts the samples taken since the start of training. Nothing here has state: the sample at an index
and every random draw are pure functions of (seed, stream, sample index). So a resumed run continues exactly as if it
had never stopped, and the steps do not depend on the number of processes, workers or micro-batches.

Integers are hashed with SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014) in wrapping int64 arithmetic, which is the same on CPUs and GPUs.
"""

from __future__ import annotations

import hashlib
import itertools

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd; consecutive counters land far apart
_FEISTEL_ROUNDS = 6


def uniform(seed: int, stream: str, sample_indices: Tensor, k: int = 1) -> Tensor:
    """Draw ``k`` uniform numbers for each sample index.

    Args:
        seed: the run's seed.
        stream: what the numbers are for, such as ``"crop"``; streams are independent of each other.
        sample_indices: int64 of any device, shape (B,).
        k: draws per sample index.

    Returns:
        float32 in [0, 1), multiples of 2^-24, shape (B, k), on the device of ``sample_indices``. The numbers are
        the same on every device, whatever else is in the batch.
    """
    columns = torch.tensor([_weyl(column + 1) for column in range(k)], device=sample_indices.device)
    bits = _mix(_mix(sample_indices ^ _signed(_key(seed, stream)))[:, None] + columns)
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def lanes(seed: int, stream: str, sample_indices: Tensor, k: int) -> Tensor:
    """Draw ``k`` 16-bit numbers for each sample index, four from one hash: cheap masks of many elements.

    Args:
        seed, stream, sample_indices: as in :func:`uniform`.
        k: draws per sample index.

    Returns:
        int16, every value equally likely, shape (B, k), on the device of ``sample_indices``.
    """
    columns = torch.arange(1, -(-k // 4) + 1, device=sample_indices.device) * _signed(_GAMMA)
    bits = _mix(_mix(sample_indices ^ _signed(_key(seed, stream)))[:, None] + columns)
    return bits.view(torch.int16)[:, :k]


def derived_seed(seed: int, stream: str, *counters: int) -> int:
    """Return a 63-bit seed for another generator, such as torch's own for dropout."""
    state = torch.tensor([_signed(_key(seed, stream))])
    for counter in counters:
        state = _mix(state + _weyl(counter + 1))
    return int(_shift_right(state, 1))


def sample_at(seed: int, sample_indices: Tensor, n: int, *, stream: str = "order") -> Tensor:
    """Return which sample is taken at each sample index.

    Sample index i is entry ``i mod n`` of the permutation of epoch ``i div n``.

    Args:
        seed: the run's seed.
        sample_indices: int64, shape (B,), not negative.
        n: number of samples in an epoch.
        stream: name of the permutation.

    Returns:
        int64 in [0, n), shape (B,).
    """
    epochs = torch.div(sample_indices, n, rounding_mode="floor")
    return _permute(sample_indices - epochs * n, n, _mix(epochs ^ _signed(_key(seed, stream))))


def place_of(seed: int, samples: Tensor, n: int, *, stream: str = "order", epoch: int = 0) -> Tensor:
    """Return at which place of an epoch each sample is taken: the inverse of :func:`sample_at`.

    Args:
        seed, n, stream: as there.
        samples: int64 in [0, n), shape (B,).
        epoch: counted from 0; it begins at sample index epoch * n.

    Returns:
        int64 in [0, n), shape (B,).
    """
    epochs = torch.full_like(samples, epoch)
    return _permute(samples, n, _mix(epochs ^ _signed(_key(seed, stream))), is_inverse=True)


def member_at(seed: int, draws: Tensor, sizes: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return which member of its group each draw takes, and how often that member was taken before.

    Draw t from a group of n is entry ``t mod n`` of the permutation of pass ``t div n``, so every member is taken once
    before any is taken again.

    Args:
        seed: the run's seed.
        draws: how many draws from the same group came before; int64, (B,), not negative.
        sizes: number of members of the group, int64, (B,).
        groups: number of the group, int64, (B,).

    Returns:
        Members, int64 in [0, size), and passes, int64; both (B,).
    """
    passes = torch.div(draws, sizes, rounding_mode="floor")
    keys = _mix(_mix(passes ^ _signed(_key(seed, "member"))) ^ groups)
    return _permute(draws - passes * sizes, sizes, keys), passes


def _permute(entries: Tensor, n: int | Tensor, keys: Tensor, *, is_inverse: bool = False) -> Tensor:
    """Apply a keyed permutation of [0, n) to ``entries``, each with its own key, in O(1) memory for any n.

    A balanced Feistel network permutes [0, 4^h) for the smallest 4^h >= n; results that fall outside [0, n)
    are sent through again until they fall inside (cycle walking: Black and Rogaway, "Ciphers with arbitrary
    finite domains", CT-RSA 2002). As 4^h < 4n, at most four passes are expected. Each entry may have an n of its own.
    """
    half_bits = _half_bits(n)
    result = entries.clone()
    outside = torch.arange(len(entries), device=entries.device)
    while len(outside):
        widths = half_bits if isinstance(half_bits, int) else half_bits[outside]
        sent = _network(result[outside], widths, keys[outside], is_inverse=is_inverse)
        result[outside] = sent
        outside = outside[sent >= (n if isinstance(n, int) else n[outside])]
    return result


def _half_bits(n: int | Tensor) -> int | Tensor:
    """Return the smallest h from 1 on with 4^h >= n; n is at most 2^53 in a tensor."""
    if isinstance(n, int):
        return max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    _, lengths = torch.frexp((n - 1).clamp(min=1).double())
    return torch.div(lengths.long() + 1, 2, rounding_mode="floor")


def _network(entries: Tensor, half_bits: int | Tensor, keys: Tensor, *, is_inverse: bool) -> Tensor:
    mask = (1 << half_bits) - 1
    left, right = entries >> half_bits, entries & mask
    if is_inverse:
        left, right = right, left  # a Feistel network backwards is the same with its halves exchanged
    rounds = range(_FEISTEL_ROUNDS)
    for round_number in reversed(rounds) if is_inverse else rounds:
        scrambled = _mix(right + keys + _weyl(round_number + 1))
        left, right = right, left ^ (_shift_right(scrambled, 24) & mask)
    if is_inverse:
        left, right = right, left
    return (left << half_bits) | right


def step_slots(batch_size: int, num_parts: int) -> list[tuple[int, int]]:
    """Split the slots [0, batch_size) of a step into contiguous parts without splitting a mixing pair.

    Slots 2j and 2j+1 are mixed with each other, so every cut is at an even slot. Parts differ by at most one
    pair; if there are fewer pairs than parts, some parts are empty.

    Returns:
        ``num_parts`` half-open ranges (start, stop), in order.
    """
    num_pairs = (batch_size + 1) // 2
    cuts = [min(2 * (num_pairs * part // num_parts), batch_size) for part in range(num_parts)] + [batch_size]
    return list(itertools.pairwise(cuts))


def _key(seed: int, stream: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every input bit reaches every output bit."""
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    # int64's >> copies the sign bit; the mask makes the shift logical.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _weyl(count: int) -> int:
    return _signed(count * _GAMMA % (1 << 64))


def _signed(word: int) -> int:
    """Return the int64 with the bits of the unsigned 64-bit ``word``."""
    return word - (1 << 64) if word >= 1 << 63 else word
