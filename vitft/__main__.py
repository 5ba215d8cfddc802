"""What ``vitft``, ``python -m vitft``, ``accelerate launch -m vitft`` and ``torchrun -m vitft`` run."""

from __future__ import annotations

import os
import sys

from vitft.processes import signals

_STOPPED = 75  # as vitft.errors.StoppedEarly, which is not imported yet


class _StoppedInImports(Exception):  # noqa: N818 - an outcome, not an error
    """A request to stop came before the command line was read."""


def main() -> None:
    """Listen for requests to stop before anything heavier is imported; then do what the command line says."""
    if sys.argv[1:2] != ["finetune"]:
        from vitft.cli import main as run

        return run()
    try:
        with signals.stoppable(_StoppedInImports, is_last=True):
            from vitft.cli import main as run

            run()
    except _StoppedInImports as signal:
        if os.environ.get("RANK", "0") == "0":
            print(f"stopped before the first step ({signal}): there is nothing to resume", file=sys.stderr)
            print("  try: the same command again", file=sys.stderr)
        sys.exit(_STOPPED)
    return None


# Loader workers import this module again under another name; only the first one is the command.
if __name__ == "__main__":
    main()
