"""The commands as functions: the Python interface.

    from vitft import Recipe, finetune, describe, evaluate, inspect, predict, probe, push, resize
    from vitft import show_views, write_report

    result = finetune(Recipe.load("quickstart"))
    print(result.results["test"]["top1"], result.run_dir)

Functions return results and raise ``VitftError``; notes and progress go to stderr.
"""

from vitft.hub.push import Published
from vitft.tasks.describing import describe
from vitft.tasks.evaluating import EvaluationResult, SizeSweep, evaluate, evaluate_sizes
from vitft.tasks.inspecting import InspectResult, inspect
from vitft.tasks.predicting import Predictions, predict, predict_each
from vitft.tasks.probing import ProbeResult, probe
from vitft.tasks.publishing import push
from vitft.tasks.reporting import ReportResult, write_report
from vitft.tasks.resizing import ResizeResult, resize
from vitft.tasks.training import FinetuneResult, finetune
from vitft.tasks.viewing import ViewsResult, show_views

__all__ = [
    "EvaluationResult",
    "FinetuneResult",
    "InspectResult",
    "Predictions",
    "ProbeResult",
    "Published",
    "ReportResult",
    "ResizeResult",
    "SizeSweep",
    "ViewsResult",
    "describe",
    "evaluate",
    "evaluate_sizes",
    "finetune",
    "inspect",
    "predict",
    "predict_each",
    "probe",
    "push",
    "resize",
    "show_views",
    "write_report",
]
