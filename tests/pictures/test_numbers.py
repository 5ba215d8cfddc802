"""What was seen, as numbers."""

import numpy as np
import pytest

from vitft.pictures.numbers import plain, write_distances


def test_numbers_are_plain_and_complete(seen, tmp_path):
    values = plain(seen)
    assert len(values["layers"]) == 3
    assert np.array(values["positions"][0]["values"]).shape == (4, 4, 4, 4)
    assert np.array(values["shown"][0]["rollout"]).sum() == pytest.approx(float(seen.shown[0].rollout.sum()), rel=1e-5)
    write_distances(seen, tmp_path / "distance.csv")
    header, *rows = (tmp_path / "distance.csv").read_text().splitlines()
    assert header.startswith("layer,block,head,distance_dropped_px")
    assert len(rows) == 6
    assert float(rows[0].split(",")[3]) == pytest.approx(seen.layers[0].distance_dropped[0], rel=1e-5)
