"""Publishing a run on the Hub: before, while and after it trains, and once more by hand."""

from __future__ import annotations

import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from vitft.errors import HubError, PublishError, UsageError
from vitft.hub.access import Destination, Unreachable, find_destination, make_destination
from vitft.hub.background import BackgroundPushes
from vitft.hub.bundle import collect, collect_training
from vitft.hub.card import Card, minimal_card, write_card
from vitft.hub.push import Published, push_bundle
from vitft.ownership import Ownership
from vitft.processes import signals
from vitft.recipe.flags import FLAGS, OF_PUSH
from vitft.recipe.keys import HubRecipe
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.tasks.ending import explained


@explained()
def push(
    run: str | Path,
    repo: str | None = None,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    license: str | None = None,
    force: bool = False,
    training: bool = False,
) -> Published:
    """Publish a finished run, or finish a publication that broke off.

    Args:
        run: its directory.
        repo: ``OWNER/NAME`` or ``NAME``; what the run's recipe says, else the name of its directory.
        private, revision, create_pr, license, force: as in the recipe's ``hub`` section.
        training: also the newest resumable checkpoint, below ``training/``.

    Raises:
        UsageError: if it is no finished run.
        PublishError: if the Hub refuses or cannot be reached.
    """
    opened = Run.open(run, "vitft push")
    if not opened.is_scored:
        broken = [line for line in opened.broken() if line.startswith("results.json")]
        raise UsageError(
            f"the run {opened.folder} is not finished: {broken[0] if broken else 'there is no model to push yet'}",
            hint=f"{opened.resume_command}, then push it",
        )
    asked = {
        "repo": repo, "private": private or None, "revision": revision, "create_pr": create_pr or None,
        "license": license, "force": force or None, "every": "end",
    }  # fmt: skip
    hub = Recipe.load(opened.folder / "recipe.yaml").hub
    hub = hub.model_copy(update={key: value for key, value in asked.items() if value is not None})
    owner = Ownership.take(opened.folder)
    try:
        return publish(opened, hub, with_training=training)
    finally:
        owner.release()


def prepare(destination: Destination | None) -> tuple[Destination | None, list[str]]:
    """Make the repository and the branch that are missing, once everything else is ready to train.

    Returns:
        The destination, None if the Hub does not answer now; and what is to be said.

    Raises:
        HubError: if the Hub refuses.
    """
    if destination is None or not destination.missing:
        return destination, []
    try:
        notes = make_destination(destination)
    except Unreachable as error:
        return None, [f"hub: {error.wrong}; training goes on, and pushing is tried at its end"]
    return replace(destination, missing=()), notes


def announce(hub: HubRecipe, run_name: str) -> tuple[Destination | None, list[str]]:
    """Find out before training whether the result may be pushed, and where to.

    Returns:
        The repository, None if the Hub does not answer now, which ends no training; and what is to be said.

    Raises:
        VitftError: if it may not.
    """
    try:
        found = find_destination(hub, run_name)
    except Unreachable as error:
        return None, [f"hub: {error.wrong}; training goes on, and pushing is tried at its end"]
    return found, [f"hub: the model goes to {found.url}"]


def pushes_during_training(run: Run, hub: HubRecipe, destination: Destination | None) -> AbstractContextManager[object]:
    """Return what pushes in the background while it is entered, by the recipe's ``hub.every``."""
    if not hub.push or hub.every == "end" or not run.is_main:
        return nullcontext()

    def send(folder: Path) -> None:
        to = destination or _destination(run, hub)
        if hub.every == "checkpoint":
            bundle = collect_training(run.folder, folder)
            message = f"Checkpoint at step {int(folder.name.removeprefix('step-'))}"
        else:
            bundle = collect(run.folder, folder, write_card(run.folder, folder, to.repo, hub.license).text)
            message = "The best model so far"
        push_bundle(bundle, to, message, run.note)

    return BackgroundPushes(run, hub.every, send)


def publish(
    run: Run, hub: HubRecipe, destination: Destination | None = None, *, with_training: bool = False
) -> Published:
    """Push a finished run as one commit, and note in it where it is.

    Raises:
        PublishError: naming the command that finishes it; the run itself is complete.
    """
    again = _command(run, hub, with_training=with_training)
    try:
        to = destination or _destination(run, hub)
        card = _card(run, to.repo, hub.license)
        run.write_text("model/README.md", card.text)
        bundle = collect(run.folder, run.model_folder, card.text)
        if with_training:
            bundle |= collect_training(run.folder, _newest_checkpoint(run))
        for note in (*run.broken(), *card.notes):
            run.say(f"  {note}")
        run.say(f"pushing {len(bundle)} files to {to.url}")
        with signals.stoppable(_give_up):
            published = push_bundle(bundle, to, card.headline, run.say, is_last=True)
    except HubError as error:
        raise PublishError(
            f"the model is trained and saved in {run.model_folder}, but not published: {error.wrong}",
            allowed=error.allowed,
            hint=f"{error.hint}; then: {again}" if error.hint else again,
        ) from error
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"the model is trained and saved; publish it with: {again}")
        raise
    run.write_json("published.json", asdict(published) | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return published


def _destination(run: Run, hub: HubRecipe) -> Destination:
    """Find out where a run's model goes, and make what is missing there."""
    found = find_destination(hub, run.folder.resolve().name)
    for note in make_destination(found):
        run.say(f"  {note}")
    return replace(found, missing=())


def _give_up(signal: str) -> HubError:
    return HubError(f"{signal} came before the push was done")


def _card(run: Run, repo: str, license: str | None) -> Card:
    """Return the card of a finished run; a minimal one if its own cannot be made, which keeps no model back."""
    try:
        return write_card(run.folder, run.model_folder, repo, license)
    except Exception as error:  # whatever it is: the model is there
        why = f"{type(error).__name__}: {error}"
        note = f"hub: no model card could be made ({why}); the model goes up with a minimal one"
        return Card(minimal_card(repo), f"{repo.split('/')[-1]}, fine-tuned with vitft", (note,))


def _command(run: Run, hub: HubRecipe, *, with_training: bool) -> str:
    """Return the command that pushes a run as it was to be pushed, with what its recipe does not say."""
    said = Recipe.load(run.folder / "recipe.yaml").hub
    words = ["vitft", "push", str(run.folder), *([hub.repo] if hub.repo else [])]
    words += ["--training"] if with_training else []
    for flag in OF_PUSH:
        name = FLAGS[flag].key.removeprefix("hub.")
        value = getattr(hub, name)
        if value and value != getattr(said, name):
            words += [flag] if value is True else [flag, value]
    return shlex.join(words)


def _newest_checkpoint(run: Run) -> Path:
    found = run.newest_checkpoint()
    if found is None:
        raise UsageError(
            f"the run {run.folder} has no checkpoint left: a finished run keeps none unless its recipe says so",
            hint="leave out --training; next time, --set train.keep_after_end=1",
        )
    return found
