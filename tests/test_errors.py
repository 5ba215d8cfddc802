"""Errors for the person: a guess where one is near, and none where not."""

from vitft.errors import did_you_mean


def test_did_you_mean_keeps_silent_when_nothing_is_near():
    assert did_you_mean("leraning_rate", ["learning_rate", "seed"]) == "learning_rate"
    assert did_you_mean("xyzzy", ["learning_rate", "seed"]) is None
