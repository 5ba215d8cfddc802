"""One bundle, one commit: whatever the network does in between.

The Hub's client does not repeat a commit, for a lost answer would make a second one. Each push has a mark of its own in
the commit's description; before another try the mark is looked for, and what is found there is the push.
"""

from __future__ import annotations

import re
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitft.errors import HubError
from vitft.hub.access import Destination, explain, token_or_error
from vitft.hub.bundle import MODEL, TRAINING, check_secrets
from vitft.hub.card import minimal_card
from vitft.retry import is_passing, is_unreachable, patiently

WAITS = (1.0, 4.0, 16.0)
"""Seconds before each further try of a push; within each the client repeats parts of it on its own."""
_SEARCHED = 20  # commits, or pull requests, among which a mark is looked for


@dataclass(frozen=True)
class Published:
    """A push that arrived.

    Attributes:
        repo: ``OWNER/NAME``.
        revision: the branch, or the pull request's ``refs/pr/N``.
        commit: its commit.
        url: what to open: the model's page, or the pull request.
    """

    repo: str
    revision: str
    commit: str
    url: str


def push_bundle(
    bundle: Mapping[str, Path | bytes],
    destination: Destination,
    message: str,
    say: Callable[[str], None],
    *,
    is_last: bool = False,
) -> Published:
    """Push files as one commit; files of an earlier push that this one has no more are removed in it.

    A checkpoint replaces the one before and leaves the model, a model leaves the checkpoint unless it is the last.

    Args:
        bundle: files by their path in the repository.
        destination: where to.
        message: what the commit says that it holds.
        say: tells the user what was decided on the way.
        is_last: whether the run has ended, and needs no checkpoint any more.

    Raises:
        HubError: if a file holds a secret, or the Hub refuses or does not answer, after the last try.
    """
    check_secrets(bundle, token_or_error())
    try:
        return _push(dict(bundle), destination, message, say, _governed(bundle, is_last))
    except HubError:
        raise
    except Exception as error:  # the Hub client's errors share no ancestor but Exception
        raise explain(error, destination.repo) from error


def _governed(bundle: Mapping[str, Path | bytes], is_last: bool) -> re.Pattern[str]:
    """Return which paths of the repository are this push's to remove."""
    if all(name.startswith("training/") for name in bundle):
        return TRAINING
    return re.compile(f"{MODEL.pattern}|{TRAINING.pattern}") if is_last else MODEL


def _push(
    bundle: dict[str, Path | bytes],
    destination: Destination,
    message: str,
    say: Callable[[str], None],
    governed: re.Pattern[str],
) -> Published:
    from huggingface_hub import HfApi

    api = HfApi()
    for further_cards in (True, True, False):
        try:
            return _commit(api, bundle, destination, message, governed, say)
        except ValueError as error:  # the Hub's validation of the card, which comes before anything is uploaded
            if "nvalid metadata" not in str(error) or not further_cards:
                raise
            reason = " ".join(str(error).split())
            minimal = minimal_card(destination.repo).encode()
            if bundle.get("README.md") == minimal:
                say(f"hub: even a minimal model card was refused ({reason}); the model goes up without one")
                del bundle["README.md"]
            else:
                say(f"hub: the model card was refused ({reason}); the model goes up with a minimal one")
                bundle["README.md"] = minimal
    raise AssertionError("the last try returns or raises")


def _commit(
    api: Any,
    bundle: Mapping[str, Path | bytes],
    destination: Destination,
    message: str,
    governed: re.Pattern[str],
    say: Callable[[str], None],
) -> Published:
    """Make one commit, looking before each further try whether the last one arrived after all."""
    mark = f"vitft push {uuid.uuid4().hex}"
    is_first = True

    def once() -> Published:
        nonlocal is_first
        if not is_first and (found := _find(api, destination, mark)) is not None:
            return found
        is_first = False
        try:
            return attempt()
        except ConnectionError as error:  # of hf_xet, which raises Python's own; the Hub's client never does
            say(f"hub: {_without_xet(error)}")
            raise

    def attempt() -> Published:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the Hub's advice on metadata, which is ours to give
            return _commit_once(api, bundle, destination, message, mark, governed)

    return patiently(once, WAITS, passes=_may_pass)


def _may_pass(error: BaseException) -> bool:
    return is_passing(error) or is_unreachable(error) or isinstance(error, ConnectionError)


def _without_xet(error: ConnectionError) -> str:
    """Upload by plain HTTP from now on, which the Hub takes as well; return what is to be said."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True
    return f"the upload through Xet failed ({' '.join(str(error).split())[:200]}); going on without it"


def _commit_once(
    api: Any,
    bundle: Mapping[str, Path | bytes],
    destination: Destination,
    message: str,
    mark: str,
    governed: re.Pattern[str],
) -> Published:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    info = api.model_info(destination.repo, revision=destination.revision, timeout=60)
    stale = [
        sibling.rfilename
        for sibling in info.siblings or []
        if governed.fullmatch(sibling.rfilename) and sibling.rfilename not in bundle
    ]
    operations = [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in bundle.items()),
        *(CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale),
    ]
    made = api.create_commit(
        destination.repo,
        operations,
        commit_message=message,
        commit_description=mark,
        revision=None if destination.create_pr else destination.revision,
        create_pr=destination.create_pr,
        # A commit by someone else in between is refused, and the next try starts from theirs.
        parent_commit=None if destination.create_pr else info.sha,
    )
    revision = str(made.pr_revision) if destination.create_pr else destination.revision
    url = str(made.pr_url) if destination.create_pr else destination.url
    return Published(destination.repo, revision, str(made.oid), url)


def _find(api: Any, destination: Destination, mark: str) -> Published | None:
    """Return the push with this mark if the Hub has it."""
    if not destination.create_pr:
        commit = _marked(api, destination.repo, destination.revision, mark)
        return Published(destination.repo, destination.revision, commit, destination.url) if commit else None
    requests = list(api.get_repo_discussions(destination.repo, discussion_type="pull_request"))
    for request in sorted(requests, key=lambda each: -each.num)[:_SEARCHED]:
        revision = f"refs/pr/{request.num}"
        if commit := _marked(api, destination.repo, revision, mark):
            return Published(destination.repo, revision, commit, f"{destination.url}/discussions/{request.num}")
    return None


def _marked(api: Any, repo: str, revision: str, mark: str) -> str | None:
    commits: Sequence[Any] = api.list_repo_commits(repo, revision=revision)[:_SEARCHED]
    return next((str(each.commit_id) for each in commits if mark in each.message), None)
