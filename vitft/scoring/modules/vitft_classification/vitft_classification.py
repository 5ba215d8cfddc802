"""Compute a classifier's scores from counts per class, as an ``evaluate`` metric.

module = evaluate.load("vitft/scoring/modules/vitft_classification")
module.compute(support=[5, 5], correct=[4, 5], predicted=[4, 6], top5_correct=None, nll_sum=2.3)
"""

from __future__ import annotations

import datasets
import evaluate

from vitft.scoring.scores import scores_of_counts

_DESCRIPTION = "Top-1, top-5, mean per-class accuracy, macro F1 and nll, from counts summed over processes."
_INPUTS = """
Args, one row per class:
    support: number of samples of the class.
    correct: number of them predicted correctly.
    predicted: number of samples predicted as the class.
    top5_correct: number of samples whose class is among the top five, over all classes; None with five or fewer.
    nll_sum: sum of the negative log-likelihoods of all samples.
Returns:
    top1, top5 (unless top5_correct is None), mean_per_class_accuracy, macro_f1, nll, count.
"""


class VitftClassification(evaluate.Metric):  # type: ignore[misc]
    """The scores of ``vitft.scoring.scores`` as an ``evaluate`` metric."""

    def _info(self) -> evaluate.MetricInfo:
        count = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"support": count, "correct": count, "predicted": count}),
        )

    def _compute(
        self,
        *,
        support: list[int],
        correct: list[int],
        predicted: list[int],
        top5_correct: int | None,
        nll_sum: float,
    ) -> dict[str, float | int]:
        scores = scores_of_counts(support, correct, predicted, top5_correct=top5_correct, nll_sum=nll_sum)
        return scores.present()
