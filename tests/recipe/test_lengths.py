"""Lengths of training: how they are read, written and counted in steps."""

import pytest

from vitft.errors import RecipeError
from vitft.recipe.lengths import Duration


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10 epochs", "10 epochs"), ("1 epoch", "1 epoch"), ("0.5 epochs", "0.5 epochs"),
        ("2500steps", "2500 steps"), ("1 step", "1 step"), ("5%", "5%"), (" 2.5 % ", "2.5%"),
        ("8 h", "8 hours"), ("90 min", "90 minutes"), ("1 d", "1 day"), ("30s", "30 seconds"),
        ("1000000 steps", "1000000 steps"), ("123456789 steps", "123456789 steps"), (".00000001 %", "0.00000001%"),
    ],
)  # fmt: skip
def test_durations_are_read_and_written(text, canonical):
    assert str(Duration.parse(text)) == canonical
    assert Duration.parse(canonical) == Duration.parse(text)


@pytest.mark.parametrize("text", ["10", 10, "epochs", "-1 epochs", "10 weeks", "1e3 steps", "", None, "5 % epochs"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration; write a number and unit"):
        Duration.parse(text)


@pytest.mark.parametrize("text", ["9" * 5000 + " steps", "1000000001 epochs", "9999999999 h"])
def test_a_duration_beyond_all_counting_is_refused_in_few_words(text):
    with pytest.raises(ValueError, match="is too long; use a number up to 1,000,000,000") as error:
        Duration.parse(text)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("10%", 3),  # 0.1 * 30 is 3.0000000000000004
        ("11%", 4),
        ("100%", 30),
        ("0%", 0),
        ("7 steps", 7),
        ("2.5 steps", 3),
        ("1 epoch", 10),
        ("0.1 epochs", 1),
        ("1.01 epochs", 11),
    ],
)
def test_durations_in_steps_are_rounded_up(text, steps):
    assert Duration.parse(text).in_steps(batch_size=50, num_samples=500, total_steps=30) == steps


def test_the_steps_of_an_epoch_include_a_short_last_one():
    assert Duration.parse("3 epochs").in_steps(batch_size=62, num_samples=501) == 25  # ceil(1503 / 62)


def test_epochs_of_a_stream_of_unknown_length_cannot_be_counted():
    with pytest.raises(RecipeError, match="the length of this stream is unknown"):
        Duration.parse("1 epoch").in_steps(batch_size=2, num_samples=None)


def test_times_know_their_seconds():
    assert Duration.parse("1.5 h").seconds == 5400
    assert Duration.parse("1.5 h").is_time
    assert not Duration.parse("5 steps").is_time
