from __future__ import annotations

import torch

from vitft.scoring.told import evidence_lines


def scores_of(labels: list[int], predictions: list[int], names: list[str]) -> dict:
    from scoring.test_evidence import said

    from vitft.scoring.metrics import final_scores
    from vitft.scoring.scores import Tally

    logits = 5.0 * torch.nn.functional.one_hot(torch.tensor(predictions), len(names)).float()
    tally = Tally(len(names))
    tally.add(logits, torch.tensor(labels))
    return final_scores(tally, names, said(logits, torch.tensor(labels)))


def test_the_worst_classes_and_the_most_confused_pairs_are_told():
    scores = scores_of([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 2, 1, 2, 2], ["ant", "bee", "cat"])
    assert list(evidence_lines("test", scores)) == [
        "test: top-1 87.5% of 8 images, between 52.9% and 97.8% (95 % interval)",
        "calibration error 11.2%; at 95% precision, the surest 50% of the images can be labelled",
        "",
        "worst classes (of 3)  images  recall  precision      F1",
        "bee                        2   50.0%     100.0%   66.7%",
        "cat                        2  100.0%      66.7%   80.0%",
        "",
        "most confused      images  of its class",
        "bee taken for cat       1         50.0%",
    ]


def test_every_class_can_be_listed_and_names_cannot_break_the_table():
    names = ["\x1b[2Jant", "b" * 200, "cat"]
    scores = scores_of([0, 1, 2], [0, 1, 2], names)
    lines = list(evidence_lines("test", scores, with_all_classes=True))
    assert [line.split()[0] for line in lines[4:7]] == [r"\x1b[2Jant", "b" * 31 + "…", "cat"]
    assert max(map(len, lines)) < 90 and "\x1b" not in "".join(lines)


def test_of_older_results_what_is_there_is_told():
    assert list(evidence_lines("test", {"top1": 0.5, "count": 2})) == []


def test_nothing_is_called_worst_where_everything_is_right():
    scores = scores_of([0, 1, 2], [0, 1, 2], ["ant", "bee", "cat"])
    assert len(list(evidence_lines("test", scores))) == 2
