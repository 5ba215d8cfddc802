"""A job that runs the script for Slurm, with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "recipes" / "slurm.sbatch"

# Starts a task for each machine, passes signals on, and ends with the largest exit code, as srun does.
SRUN = """#!/bin/bash
echo "$@" >> srun
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < ${SLURM_JOB_NUM_NODES:-1}; node++)); do
    SLURM_NODEID=$node "$@" &
    tasks+=($!)
done
trap 'again=true; kill -USR1 "${tasks[@]}" 2> /dev/null' USR1
code=0
for task in "${tasks[@]}"; do
    again=true
    while $again; do again=false; wait "$task"; ended=$?; done
    ((ended > code)) && code=$ended
done
exit "$code"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'first\\nsecond\\n'; else echo "$@" >> queued; fi
"""


class Job:
    """A job in a folder of its own."""

    def __init__(self, home: Path, vitft: str) -> None:
        self.home = home
        (home / "bin").mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, "vitft": vitft}.items():
            (home / "bin" / name).write_text(text)
            (home / "bin" / name).chmod(0o755)

    def run(self, script: str, stop_when: str = "", signal: str = "USR1", **variables: str) -> int:
        """Run the script to its end, as :meth:`start` does; return its exit code."""
        return self.start(script, stop_when, signal, **variables).wait(timeout=300)

    def start(
        self, script: str, stop_when: str = "", signal: str = "USR1", **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start the script; it gets a signal as soon as the condition ``stop_when`` holds."""
        ahead = f"{{ until {stop_when}; do sleep 0.02; done; kill -{signal} $$; }} &\n" if stop_when else ""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "VITFT_"))}
        environment |= {"PATH": f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        return subprocess.Popen(["bash", "-c", ahead + script], cwd=self.home, env=environment | variables)

    def said(self, file: str) -> list[str]:
        path = self.home / file
        return path.read_text().splitlines() if path.exists() else []
