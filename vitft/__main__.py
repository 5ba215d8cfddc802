"""The entry point of ``vitft``, ``python -m vitft``, ``accelerate launch -m vitft`` and ``torchrun -m vitft``."""

from __future__ import annotations

import os
import sys

from vitft.processes import signals

_STOPPED = 75  # the exit code of vitft.errors.StoppedEarly, which is not imported yet


class _StoppedInImports(Exception):  # noqa: N818 - an outcome, not an error
    """A request to stop came before the command line was read."""


def main() -> None:
    """Run the command line; for ``finetune``, listen for stop signals before importing anything heavy."""
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


# Loader workers import this module again under another name; they must not run the command.
if __name__ == "__main__":
    main()
