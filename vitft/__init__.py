"""vitft fine-tunes Vision Transformers from the Hugging Face Hub on any image dataset.

Each command is also a function: ``from vitft import Recipe, finetune, evaluate, predict``.
Names are imported on first use (PEP 562), to keep ``import vitft`` and ``vitft --help`` fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "vitft.recipe.recipe",
    "VitftError": "vitft.errors",
    "describe": "vitft.tasks",
    "evaluate": "vitft.tasks",
    "finetune": "vitft.tasks",
    "inspect": "vitft.tasks",
    "predict": "vitft.tasks",
    "predict_each": "vitft.tasks",
    "probe": "vitft.tasks",
    "push": "vitft.tasks",
    "resize": "vitft.tasks",
    "show_views": "vitft.tasks",
    "write_report": "vitft.tasks",
}

__all__ = [
    "Recipe",
    "VitftError",
    "__version__",
    "describe",
    "evaluate",
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


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vitft' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
