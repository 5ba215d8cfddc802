"""Order and randomness: against SplitMix64 in Python's own integers, and by their properties."""

import hashlib

import pytest
import torch

from vitft.data.order import derived_seed, lanes, place_of, sample_at, step_slots, uniform

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def splitmix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
    return x ^ (x >> 31)


def reference_uniform(seed: int, stream: str, position: int, column: int) -> float:
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest(), "little")
    return (splitmix((splitmix((position & WORD) ^ key) + (column + 1) * GAMMA) & WORD) >> 40) * 2.0**-24


def test_the_finaliser_is_splitmix64():
    # The first outputs of SplitMix64 with seed 0, as its reference implementation prints them.
    assert [splitmix(GAMMA * i & WORD) for i in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@pytest.mark.parametrize("position", [0, 1, 17, 2**31, 2**40 + 3])
def test_uniform_equals_integer_arithmetic_without_a_sign(position):
    drawn = uniform(7, "crop", torch.tensor([position]), 5)[0].tolist()
    assert drawn == [reference_uniform(7, "crop", position, column) for column in range(5)]


def test_a_draw_does_not_depend_on_what_else_is_drawn():
    positions = torch.arange(1000)
    whole = uniform(3, "flip", positions, 4)
    assert torch.equal(uniform(3, "flip", positions[123:456], 4), whole[123:456])
    assert torch.equal(uniform(3, "flip", positions.flip(0), 2), whole.flip(0)[:, :2])


def test_draws_are_uniform_and_independent():
    drawn = uniform(0, "crop", torch.arange(200_000), 3).double()
    counts = torch.histc(drawn.flatten().float(), bins=64, min=0, max=1)
    expected = drawn.numel() / 64
    assert float(((counts - expected) ** 2 / expected).sum()) < 110  # chi-square, 63 degrees: p < 0.0003
    assert drawn.min() >= 0 and drawn.max() < 1
    others = [uniform(1, "crop", torch.arange(200_000), 1), uniform(0, "flip", torch.arange(200_000), 1)]
    neighbours = torch.roll(drawn[:, :1], 1, 0)
    table = torch.cat([drawn, neighbours, *(other.double() for other in others)], 1)
    correlations = torch.corrcoef(table.T) - torch.eye(table.shape[1], dtype=torch.float64)
    assert correlations.abs().max() < 5 / 200_000**0.5


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 501, 1024, 1025, 4097])
def test_every_epoch_takes_every_sample_once(n):
    rows = sample_at(5, torch.arange(3 * n), n).view(3, n)
    assert torch.equal(rows.sort(1).values, torch.arange(n).expand(3, n))
    if n > 10:
        assert not torch.equal(rows[0], rows[1])
        assert not torch.equal(rows[0], sample_at(6, torch.arange(n), n))
        assert not torch.equal(rows[0], torch.arange(n))


def test_the_order_needs_no_memory_for_large_n():
    n = 10**12
    rows = sample_at(0, torch.arange(1000), n)
    assert len(set(rows.tolist())) == 1000
    assert rows.min() >= 0 and rows.max() < n
    assert float(rows.double().mean()) == pytest.approx(n / 2, rel=0.1)


def test_each_place_of_the_order_is_equally_likely():
    n, seeds = 12, 600
    first = torch.stack([sample_at(seed, torch.arange(2), n) for seed in range(seeds)])
    for place in (0, 1):
        counts = torch.bincount(first[:, place], minlength=n).double()
        assert float(((counts - seeds / n) ** 2 / (seeds / n)).sum()) < 35  # 11 degrees of freedom: p < 0.0003


@pytest.mark.parametrize("batch_size", [1, 2, 3, 15, 62, 63, 128])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 8])
def test_parts_of_a_step_are_contiguous_and_split_no_pair(batch_size, num_parts):
    parts = step_slots(batch_size, num_parts)
    assert [slot for start, stop in parts for slot in range(start, stop)] == list(range(batch_size))
    assert len(parts) == num_parts
    assert all(start % 2 == 0 or start == batch_size for start, _ in parts)
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 3  # a pair, and the odd last one


def test_seeds_for_other_generators_differ_by_every_counter():
    seeds = {derived_seed(s, stream, a, b) for s in (0, 1) for stream in "xy" for a in range(5) for b in range(5)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_lanes_are_uniform_and_belong_to_their_sample_alone():
    drawn = lanes(3, "mask", torch.arange(500), 402)
    assert drawn.shape == (500, 402) and drawn.dtype == torch.int16
    counts = torch.bincount((drawn.flatten().int() + 2**15) // 4096, minlength=16).double()
    expected = drawn.numel() / 16
    assert float(((counts - expected) ** 2 / expected).sum()) < 45  # 15 degrees of freedom: p < 0.0001
    assert float(torch.corrcoef(drawn[:, :4].T.double()).triu(1).abs().max()) < 0.2  # four of one hash
    assert torch.equal(lanes(3, "mask", torch.tensor([77, 5]), 402), drawn[[77, 5]])
    assert torch.equal(lanes(3, "mask", torch.arange(500), 9), drawn[:, :9])
    assert not torch.equal(lanes(3, "other", torch.arange(500), 402), drawn)
    assert not torch.equal(lanes(4, "mask", torch.arange(500), 402), drawn)


@pytest.mark.parametrize("n", [1, 2, 17, 64, 4097])
def test_the_place_of_a_sample_is_where_the_order_has_it(n):
    entries = torch.arange(n)
    assert torch.equal(place_of(3, sample_at(3, entries, n, stream="carve"), n, stream="carve"), entries)
    assert torch.equal(place_of(3, sample_at(3, 5 * n + entries, n), n, epoch=5), entries)


def test_a_place_among_a_hundred_million_is_found_without_a_list_of_them():
    samples = torch.tensor([0, 99_999_999, 12_345_678])
    assert torch.equal(sample_at(1, place_of(1, samples, 10**8), 10**8), samples)
