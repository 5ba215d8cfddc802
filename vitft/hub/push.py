"""One bundle, one commit: whatever the network does in between.

The Hub's client does not repeat a commit, for a lost answer would make a second one. Each push has a mark of its own in
the commit's description; before another try the mark is looked for, and what is found there is the push.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
    push = _Push(dict(bundle), destination, message, say, _governed(bundle, is_last))
    try:
        return push.make()
    except HubError:
        raise
    except Exception as error:  # the Hub client's errors share no ancestor but Exception
        raise explain(error, destination.repo) from error


def _governed(bundle: Mapping[str, Path | bytes], is_last: bool) -> re.Pattern[str]:
    """Return which paths of the repository are this push's to remove."""
    if all(name.startswith("training/") for name in bundle):
        return TRAINING
    return re.compile(f"{MODEL.pattern}|{TRAINING.pattern}") if is_last else MODEL


class _Push:
    """A push on its way: what it holds, where it goes, and the mark that tells its commit from others."""

    def __init__(
        self,
        bundle: dict[str, Path | bytes],
        destination: Destination,
        message: str,
        say: Callable[[str], None],
        governed: re.Pattern[str],
    ) -> None:
        from huggingface_hub import HfApi

        self.api = HfApi()
        self.bundle, self.to, self.message, self.say, self.governed = bundle, destination, message, say, governed
        self.mark = f"vitft push {uuid.uuid4().hex}"
        self.has_tried = False

    def make(self) -> Published:
        """Commit, with a lesser card where the Hub refuses this one."""
        minimal = minimal_card(self.to.repo).encode()
        while True:
            try:
                return patiently(self.commit, WAITS, passes=_may_pass)
            except ValueError as error:  # the Hub's validation of the card, which comes before anything is uploaded
                if "nvalid metadata" not in str(error) or "README.md" not in self.bundle:
                    raise
                reason = " ".join(str(error).split())
                if self.bundle["README.md"] == minimal:
                    self.say(f"hub: even a minimal model card was refused ({reason}); the model goes up without one")
                    del self.bundle["README.md"]
                else:
                    self.say(f"hub: the model card was refused ({reason}); the model goes up with a minimal one")
                    self.bundle["README.md"] = minimal

    def commit(self) -> Published:
        """Make the commit, unless an earlier try made it and only its answer was lost."""
        if self.has_tried and (found := self.find()) is not None:
            return found
        self.has_tried = True
        try:
            return self.commit_anew()
        except ConnectionError as error:  # of hf_xet, which raises Python's own; the Hub's client never does
            self.say(f"hub: {_without_xet(error)}")
            raise

    def commit_anew(self) -> Published:
        """Make the commit on top of what the branch holds now."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        to = self.to
        info = self.api.model_info(to.repo, revision=to.revision, timeout=60)
        there = [sibling.rfilename for sibling in info.siblings or []]
        stale = [name for name in there if self.governed.fullmatch(name) and name not in self.bundle]
        made = self.api.create_commit(
            to.repo,
            [
                *(CommitOperationAdd(name, content) for name, content in self.bundle.items()),
                *(CommitOperationDelete(name, is_folder=False) for name in stale),
            ],
            commit_message=self.message,
            commit_description=self.mark,
            revision=None if to.create_pr else to.revision,
            create_pr=to.create_pr,
            # A commit by someone else in between is refused, and the next try starts from theirs.
            parent_commit=None if to.create_pr else info.sha,
        )
        if to.create_pr:
            return Published(to.repo, str(made.pr_revision), str(made.oid), str(made.pr_url))
        return Published(to.repo, to.revision, str(made.oid), to.url)

    def find(self) -> Published | None:
        """Return this push if the Hub has it."""
        to = self.to
        if not to.create_pr:
            commit = self.marked(to.revision)
            return Published(to.repo, to.revision, commit, to.url) if commit else None
        requests = list(self.api.get_repo_discussions(to.repo, discussion_type="pull_request"))
        for request in sorted(requests, key=lambda each: -each.num)[:_SEARCHED]:
            revision = f"refs/pr/{request.num}"
            if commit := self.marked(revision):
                return Published(to.repo, revision, commit, f"{to.url}/discussions/{request.num}")
        return None

    def marked(self, revision: str) -> str | None:
        """Return the commit with the mark among the newest of a branch."""
        commits = self.api.list_repo_commits(self.to.repo, revision=revision)[:_SEARCHED]
        return next((str(each.commit_id) for each in commits if self.mark in each.message), None)


def _may_pass(error: BaseException) -> bool:
    return is_passing(error) or is_unreachable(error) or isinstance(error, ConnectionError)


def _without_xet(error: ConnectionError) -> str:
    """Upload by plain HTTP from now on, which the Hub takes as well; return what is to be said."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True
    return f"the upload through Xet failed ({' '.join(str(error).split())[:200]}); going on without it"
