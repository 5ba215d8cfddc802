"""Push a bundle as exactly one commit, whatever the network does.

The Hub's client does not retry a commit, because after a lost answer there would be two. So each push puts its own mark
in the commit's description, and before a retry looks for the mark: if it is there, the push has succeeded.
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
"""Seconds before each retry of a push; within each try the client retries parts of it on its own."""
_SEARCHED = 20  # newest commits or pull requests that are searched for a mark


@dataclass(frozen=True)
class Published:
    """A successful push.

    Attributes:
        repo: ``OWNER/NAME``.
        revision: the branch, or the pull request's ``refs/pr/N``.
        commit: the hash of its commit.
        url: the page of the model, or of the pull request.
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
    """Push files as one commit, which also removes an earlier push's files that are not in this one.

    A checkpoint replaces the previous one and leaves the model; a model leaves the checkpoint, unless it is the last.

    Args:
        bundle: files by their path in the repository.
        destination: where to push.
        message: the commit's message.
        say: prints decisions made on the way.
        is_last: whether the run has ended and no longer needs its checkpoint.

    Raises:
        HubError: if a file contains a secret, or the Hub refuses or, after the last retry, does not answer.
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
    """Return the pattern of paths in the repository that this push may remove."""
    if all(name.startswith("training/") for name in bundle):
        return TRAINING
    return re.compile(f"{MODEL.pattern}|{TRAINING.pattern}") if is_last else MODEL


class _Push:
    """A push under way: its files, its destination, and the mark that identifies its commit."""

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
        """Commit; if the Hub refuses the model card, with a minimal card or none."""
        minimal = minimal_card(self.to.repo).encode()
        while True:
            try:
                return patiently(self.commit, WAITS, passes=_may_pass)
            except ValueError as error:  # the Hub checks the card before anything is uploaded
                if "nvalid metadata" not in str(error) or "README.md" not in self.bundle:
                    raise
                reason = " ".join(str(error).split())
                if self.bundle["README.md"] == minimal:
                    self.say(f"hub: even a minimal model card was refused ({reason}); the model is pushed without one")
                    del self.bundle["README.md"]
                else:
                    self.say(f"hub: the model card was refused ({reason}); the model is pushed with a minimal one")
                    self.bundle["README.md"] = minimal

    def commit(self) -> Published:
        """Make the commit, unless an earlier try made it and only its answer was lost."""
        if self.has_tried and (found := self.find()) is not None:
            return found
        self.has_tried = True
        try:
            return self.commit_anew()
        except Exception as error:  # the Hub client's errors share no ancestor but Exception; raised again
            if _is_from_xet(error):
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
            # If someone else commits in between, ours is refused, and the next try starts from theirs.
            parent_commit=None if to.create_pr else info.sha,
        )
        if to.create_pr:
            return Published(to.repo, str(made.pr_revision), str(made.oid), str(made.pr_url))
        return Published(to.repo, to.revision, str(made.oid), to.url)

    def find(self) -> Published | None:
        """Return this push if it has already reached the Hub."""
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
        """Return the commit with our mark, among the newest of a branch."""
        commits = self.api.list_repo_commits(self.to.repo, revision=revision)[:_SEARCHED]
        return next((str(each.commit_id) for each in commits if self.mark in each.message), None)


def _may_pass(error: BaseException) -> bool:
    return is_passing(error) or is_unreachable(error) or _is_from_xet(error)


def _is_from_xet(error: BaseException) -> bool:
    # hf_xet raises Python's own ConnectionError, which the Hub's client never does. Up to huggingface_hub 1.18, the
    # client itself asks for the token of Xet, and its error names the address.
    return isinstance(error, ConnectionError) or "/xet-write-token/" in str(error)


def _without_xet(error: BaseException) -> str:
    """Use plain HTTP from now on, which the Hub accepts too; return a note on it."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = True
    return f"the upload through Xet failed ({' '.join(str(error).split())[:200]}); continuing without it"
