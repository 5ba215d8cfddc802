"""A user of the Hub: a process with the real clients and HF_ENDPOINT, in which commands run one after the other.

Importing torch and transformers takes longer than a push; so one warm process forks a child for each command. Nothing
of the clients is replaced. Waiting is made short: ``time.sleep`` takes a fiftieth, at most a tenth of a second.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class Client:
    """The warm process, seen from a test."""

    def __init__(self, url: str, home: Path, *, xet: bool = False) -> None:
        self.home = home
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment |= {
            "HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HOME": str(home), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")])
        self.environment = environment
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=home,
        )

    def run(self, *arguments: object, token: str | None = "hf_writer", env: Mapping[str, str] | None = None) -> Outcome:
        """Run ``vitft`` with these arguments."""
        return self.call({"arguments": [str(each) for each in arguments]}, token, env)

    def python(self, code: str, *, token: str | None = "hf_writer", env: Mapping[str, str] | None = None) -> Outcome:
        """Run lines of Python."""
        return self.call({"code": code}, token, env)

    def run_anew(self, *arguments: object, env: Mapping[str, str]) -> Outcome:
        """Run ``vitft`` in a process of its own, whose clients read ``env`` when they are imported."""
        done = subprocess.run(
            [sys.executable, "-m", "vitft", *map(str, arguments)],
            capture_output=True, text=True, env=self.environment | dict(env), cwd=self.home,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    def empty(self) -> None:
        """Remove everything that the user has."""
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def call(self, wish: dict[str, Any], token: str | None, env: Mapping[str, str] | None) -> Outcome:
        assert self.process.stdin is not None and self.process.stdout is not None
        wish["env"] = {**({"HF_TOKEN": token} if token else {}), **(env or {})}
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def work(wish: Mapping[str, Any]) -> Outcome:
    """Do one wish in this process."""
    out, err = io.StringIO(), io.StringIO()
    os.environ.update(wish["env"])
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if "code" in wish:
                exec(wish["code"], {"__name__": "__main__"})
            else:
                from vitft.cli import main

                main(wish["arguments"])
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            import traceback

            traceback.print_exc()
            code = 99 if not isinstance(error, KeyboardInterrupt) else 130
    return Outcome(code, out.getvalue(), err.getvalue())


def warm() -> None:
    """Import what commands import, before they are forked: that would take most of their time, each time."""
    import PIL.Image

    import vitft

    for module in pkgutil.walk_packages(vitft.__path__, "vitft."):
        if module.name != "vitft.__main__" and ".modules." not in module.name:
            importlib.import_module(module.name)
    for name in ("aiohttp", "evaluate", "pandas", "pyarrow.dataset", "scipy.stats", "transformers.pipelines"):
        importlib.import_module(name)
    importlib.import_module("transformers.models.vit.modeling_vit")
    PIL.Image.init()
    gc.collect()
    gc.freeze()  # a collection in a child would look at, and so copy, all of this


def main(wishes: Sequence[str] | Any) -> None:
    warm()
    import vitft.retry

    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds / 50, 0.1))
    vitft.retry.TIMEOUT = 2.0
    for line in wishes:
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "answer"
            child = os.fork()
            if child == 0:
                try:
                    answer.write_text(json.dumps(vars(work(json.loads(line)))))
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            text = answer.read_text() if answer.exists() else json.dumps(vars(Outcome(98, "", "the child died")))
        print(text, flush=True)


if __name__ == "__main__":
    main(sys.stdin)
