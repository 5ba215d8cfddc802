"""Keep other libraries quiet: their progress bars, advice and usage counters."""

from __future__ import annotations

import os
import sys

_COUNTS = "HF_UPDATE_DOWNLOAD_COUNTS"


def count_no_downloads() -> None:
    """Stop `datasets` and `evaluate` from reporting every load to a usage counter, unless the environment asks."""
    wanted = os.environ.setdefault(_COUNTS, "0").upper() in {"1", "ON", "YES", "TRUE"}
    for name in ("datasets", "evaluate"):
        if (settings := sys.modules.get(f"{name}.config")) is not None:
            setattr(settings, _COUNTS, wanted)


def quiet_libraries(*, with_datasets: bool = True) -> None:
    """Keep other libraries' progress bars and advice off the terminal."""
    count_no_downloads()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not with_datasets:  # it takes a second to import
        return
    import datasets

    datasets.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
