"""The vote of the nearest training images."""

import numpy as np
import pytest

from vitft.probes import neighbours
from vitft.probes.labelled import Labelled


def test_votes_by_hand():
    """Three neighbours at cosines 1, 0.6 and 0: weights exp(c / 0.07), lengths do not matter."""
    train = Labelled(np.array([[2.0, 0], [3, 4], [0, 5], [-1, 0]], dtype=np.float32), np.array([0, 1, 1, 2]))
    [[[one], [three]]] = neighbours.votes(train, np.array([[7.0, 0]], dtype=np.float32), (1, 3), 3)
    expected = np.array([np.exp(1 / 0.07), np.exp(0.6 / 0.07) + 1, 0])
    assert three / three.sum() == pytest.approx(expected / expected.sum(), rel=1e-4)
    assert one.tolist() == [1, 0, 0]


def test_they_are_those_of_a_plain_loop(monkeypatch):
    generator = np.random.default_rng(0)
    train = Labelled(generator.normal(size=(60, 6)).astype(np.float32), np.arange(60) % 5)
    asked = generator.normal(size=(23, 6)).astype(np.float32)
    monkeypatch.setattr(neighbours, "_CHUNK", 60 * 7)  # several chunks, the last one short
    chunks = list(neighbours.votes(train, asked, (10,), 5))
    assert [len(chunk[0]) for chunk in chunks] == [7, 7, 7, 2]
    found = np.concatenate([chunk[0] for chunk in chunks])
    for row, values in enumerate(asked):
        cosines = train.values @ values / np.linalg.norm(train.values, axis=1) / np.linalg.norm(values)
        expected = np.zeros(5)
        for near in np.argsort(-cosines)[:10]:
            expected[train.labels[near]] += np.exp(cosines[near] / 0.07)
        assert found[row] / found[row].sum() == pytest.approx(expected / expected.sum(), rel=1e-3)


def test_fewer_images_than_neighbours_all_vote():
    train = Labelled(np.eye(3, dtype=np.float32), np.arange(3))
    assert neighbours.accuracies(train, train, 3) == {10: 1.0, 20: 1.0}
