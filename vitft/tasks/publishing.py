"""Publish a run on the Hub: check before training, push during and after it, or push later by hand."""

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
    """Publish a finished run, or complete a push that broke off.

    Args:
        run: the run directory.
        repo: ``OWNER/NAME`` or ``NAME``; by default the one in the run's recipe, or else the directory's name.
        private, revision, create_pr, license, force: as in the recipe's ``hub`` section.
        training: also push the newest resumable checkpoint, into ``training/``.

    Raises:
        UsageError: if the run is not finished.
        PublishError: if the Hub refuses or cannot be reached.
    """
    opened = Run.open(run, "vitft push", lambda run: run.is_scored)
    if not opened.is_scored:
        broken = [line for line in opened.broken() if line.startswith("results.json")]
        raise UsageError(
            f"the run {opened.folder} is not finished: {broken[0] if broken else 'there is no model to push yet'}",
            hint=f"{opened.resume_command} && vitft push {shlex.quote(str(opened.folder))}",
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
    """Create the repository and the branch if they are missing, once everything else is ready to train.

    Returns:
        The destination, None if the Hub does not answer; and notes.

    Raises:
        HubError: if the Hub refuses.
    """
    if destination is None or not destination.missing:
        return destination, []
    try:
        notes = make_destination(destination)
    except Unreachable as error:
        return None, [f"hub: {error.wrong}; training continues, and the push is tried at the end"]
    return replace(destination, missing=()), notes


def announce(hub: HubRecipe, run_name: str) -> tuple[Destination | None, list[str]]:
    """Check before training whether the result may be pushed, and where to.

    Returns:
        The destination, None if the Hub does not answer, which does not stop training; and notes.

    Raises:
        VitftError: if it may not be pushed.
    """
    try:
        found = find_destination(hub, run_name)
    except Unreachable as error:
        return None, [f"hub: {error.wrong}; training continues, and the push is tried at the end"]
    return found, [f"hub: the model will be pushed to {found.url}"]


def pushes_during_training(run: Run, hub: HubRecipe, destination: Destination | None) -> AbstractContextManager[object]:
    """Return a context that pushes in the background as often as the recipe's ``hub.every`` says."""
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
    """Push a finished run as one commit, and write ``published.json``.

    Raises:
        PublishError: with the command that completes the push; the run itself is complete.
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
            f"the model is trained and saved in {run.model_folder} but not published: {error.wrong}",
            allowed=error.allowed,
            hint=f"{error.hint}; then: {again}" if error.hint else again,
        ) from error
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"the model is trained and saved; publish it with: {again}")
        raise
    run.write_json("published.json", asdict(published) | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    return published


def _destination(run: Run, hub: HubRecipe) -> Destination:
    """Return the destination of a run's model, and create what is missing there."""
    found = find_destination(hub, run.folder.resolve().name)
    for note in make_destination(found):
        run.say(f"  {note}")
    return replace(found, missing=())


def _give_up(signal: str) -> HubError:
    return HubError(f"{signal} arrived before the push was complete")


def _card(run: Run, repo: str, license: str | None) -> Card:
    """Return the model card of a finished run, or a minimal one if that fails, so that the push goes through."""
    try:
        return write_card(run.folder, run.model_folder, repo, license)
    except Exception as error:  # whatever it is, the model is saved
        why = f"{type(error).__name__}: {error}"
        note = f"hub: the model card could not be written ({why}); the model is pushed with a minimal one"
        return Card(minimal_card(repo), f"{repo.split('/')[-1]}, fine-tuned with vitft", (note,))


def _command(run: Run, hub: HubRecipe, *, with_training: bool) -> str:
    """Return the command that repeats a push, with flags for everything that differs from the run's recipe."""
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
            f"the run {run.folder} has no checkpoint left; by default a run removes them when it finishes",
            hint="leave out --training; for the next run, --set train.keep_after_end=1",
        )
    return found
