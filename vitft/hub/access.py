"""Find where on the Hub to push a model, and check access before training, so that a bad token costs seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vitft.errors import HubError, UsageError
from vitft.hub.bundle import TRAINING
from vitft.names import endpoint, is_offline
from vitft.recipe.keys import HubRecipe
from vitft.retry import is_passing, is_unreachable, kinds_of, patiently, status_of

_NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.\-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SAYS_NOTHING = {".gitattributes", ".gitignore", "README.md", "LICENSE"}


@dataclass(frozen=True)
class Destination:
    """A repository that this token may write to.

    Attributes:
        repo: ``OWNER/NAME``.
        revision: the branch.
        create_pr: whether a pull request is opened instead of changing the branch.
        is_private: whether to make the repository private, if it is new.
        missing: what must still be created: the ``repository``, the ``branch``.
    """

    repo: str
    revision: str = "main"
    create_pr: bool = False
    is_private: bool = False
    missing: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The repository's page."""
        return f"{endpoint()}/{self.repo}"


class Unreachable(HubError):  # noqa: N818 - an answer, not a fault of ours
    """The Hub could not be asked; it may answer later."""


def find_destination(hub: HubRecipe, default_name: str) -> Destination:
    """Find where to push a model and check that this is allowed; nothing is created yet.

    Args:
        hub: the recipe's section.
        default_name: of the repository if the recipe names none.

    Raises:
        UsageError: if the name is not valid on the Hub.
        Unreachable: if the Hub does not answer.
        HubError: if there is no token, it may not write there, or the repository contains something else.
    """
    check_form(hub, default_name)
    token_or_error()
    try:
        return _find(hub, default_name)
    except HubError:
        raise
    except Exception as error:  # the Hub client's errors have no common base class
        raise explain(error, hub.repo or default_name) from error


def make_destination(to: Destination) -> list[str]:
    """Create the missing repository or branch; return a note on each.

    Raises:
        Unreachable, HubError: as :func:`find_destination`.
    """
    from huggingface_hub import HfApi

    api, notes = HfApi(), []
    try:
        if "repository" in to.missing:
            patiently(lambda: api.create_repo(to.repo, private=to.is_private or None, exist_ok=True))
            notes.append(f"hub: created the {'private ' if to.is_private else ''}repository {to.repo}")
        if "branch" in to.missing:
            patiently(lambda: api.create_branch(to.repo, branch=to.revision, exist_ok=True))
            notes.append(f"hub: created the branch {to.revision} of {to.repo}")
    except Exception as error:  # the Hub client's errors have no common base class
        raise explain(error, to.repo) from error
    return notes


def check_form(hub: HubRecipe, default_name: str) -> None:
    """Check the ``hub`` section as far as possible without the Hub.

    Raises:
        UsageError: for an invalid repository name or licence, or flags that contradict each other.
    """
    name = hub.repo or default_name
    parts = name.split("/")
    if len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts) or parts[-1].endswith(".git"):
        raise UsageError(
            f"{name!r} is not a valid repository name",
            allowed="OWNER/NAME or NAME: up to 96 letters, digits, _, and - or . inside, but no -- or ..",
            hint=f"--hub-repo {_likely_name(name)}",
        )
    if hub.license is not None and not _LICENCE.fullmatch(hub.license):
        raise UsageError(
            f"{hub.license!r} is not one of the Hub's licence identifiers",
            allowed="one from https://huggingface.co/docs/hub/repositories-licenses, such as apache-2.0",
            hint="vitft push RUN --license apache-2.0, or vitft finetune --set hub.license=apache-2.0",
        )
    if hub.create_pr and hub.revision not in (None, "main"):
        raise UsageError("a pull request is opened against main", hint="leave out --hub-revision, or --create-pr")
    if hub.create_pr and hub.every != "end":
        raise UsageError("a pull request is only for the finished model", hint="leave out --hub-every, or --create-pr")


def token_or_error() -> str:
    """Return the token that the Hub's client will use.

    Raises:
        HubError: if there is none, or the Hub is switched off.
    """
    from huggingface_hub import get_token

    if is_offline():
        raise HubError(
            "HF_HUB_OFFLINE is set, so nothing can be pushed",
            hint="unset HF_HUB_OFFLINE, or train without --push-to-hub and later: vitft push RUN",
        )
    token = get_token()
    if not token:
        raise HubError(
            "pushing to the Hub needs a token, and there is none",
            hint="create one with write access at https://huggingface.co/settings/tokens, then: hf auth login "
            "(or set HF_TOKEN)",
        )
    if not token.isascii():
        raise HubError("the token contains characters that no token has", hint="hf auth login, or correct HF_TOKEN")
    return token


def explain(error: BaseException, repo: str) -> HubError:
    """Turn a failed request to the Hub into an error for someone who pushes to ``repo``."""
    status, kinds = status_of(error), kinds_of(error)
    first = _without_token(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    if status == 401 and "RepositoryNotFoundError" not in kinds:
        return HubError(
            "the Hub does not accept this token: it is mistyped or was revoked",
            hint="hf auth login (or set HF_TOKEN) with a token from https://huggingface.co/settings/tokens",
        )
    if status == 403:
        return _may_not_write(repo)
    if "RevisionNotFoundError" in kinds:
        return HubError(f"{repo} has no such revision: {first}", hint="--hub-revision BRANCH")
    if kinds & {"RepositoryNotFoundError"} or status == 404:
        return HubError(
            f"there is no {repo} on the Hub, or this token has no access to it", hint="--hub-repo OWNER/NAME"
        )
    if is_passing(error) or is_unreachable(error) or "NetworkError" in kinds:
        return Unreachable(f"{endpoint()} did not answer properly: {first}", hint="check the network and try again")
    return HubError(f"{'the Hub refused' if status else 'the push failed'}: {first}", hint=f"see {endpoint()}/{repo}")


def _find(hub: HubRecipe, default_name: str) -> Destination:
    from huggingface_hub import HfApi

    api = HfApi()
    me = patiently(api.whoami)
    owner, name = (hub.repo or default_name).split("/") if "/" in (hub.repo or "") else (None, hub.repo or default_name)
    repo = f"{owner or me['name']}/{name}"
    _check_owner(me, repo, hub)
    info = _info(api, repo)
    revision, missing = hub.revision or "main", []
    if info is None:
        if hub.create_pr:
            raise HubError(f"there is no {repo} to open a pull request for", hint="leave out --create-pr to create it")
        missing.append("repository")
    else:
        _check_existing(api, info, repo, hub)
    if revision != "main" and (info is None or not _has_revision(api, repo, revision)):
        missing.append("branch")
    return Destination(repo, revision, hub.create_pr, hub.private, tuple(missing))


def _check_owner(me: dict[str, Any], repo: str, hub: HubRecipe) -> None:
    """Raise for a read-only token, and for an owner who is neither this user nor one of their organisations.

    With a read-only token, creating a repository that exists succeeds, and only the upload fails.
    """
    token = me.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise HubError(
            f"the token {token.get('displayName', '')!r} of {me['name']} is read-only",
            hint="create one with write access at https://huggingface.co/settings/tokens, then: hf auth login "
            "(or set HF_TOKEN)",
        )
    owner, name = repo.split("/")
    organisations = {each["name"]: each.get("roleInOrg") for each in me.get("orgs", [])}
    if owner == me["name"] or hub.create_pr:
        return
    if owner not in organisations or organisations[owner] == "read":
        why = "has only read access there" if owner in organisations else "is not a member of it"
        raise HubError(
            f"{me['name']} cannot push to {owner}: {why}",
            allowed=", ".join([me["name"], *(org for org, role in organisations.items() if role != "read")]),
            hint=f"--hub-repo {me['name']}/{name}, or --create-pr to propose it to {owner}",
        )


def _info(api: Any, repo: str) -> Any:
    """Return the Hub's information on a repository; None if it does not exist."""
    try:
        return patiently(lambda: api.model_info(repo, timeout=30))
    except Exception as error:  # the Hub client's errors have no common base class
        if "RepositoryNotFoundError" in kinds_of(error) and "GatedRepoError" not in kinds_of(error):
            return None
        raise


def _check_existing(api: Any, info: Any, repo: str, hub: HubRecipe) -> None:
    """Raise if the token cannot write to a repository, it is public but should not be, or it has other content."""
    if not hub.create_pr:
        try:
            patiently(lambda: api.auth_check(repo, write=True))
        except Exception as error:  # the Hub client's errors have no common base class
            if status_of(error) in (401, 403, 404):
                raise _may_not_write(repo) from error
            raise
    if hub.private and info.private is False:
        raise HubError(
            f"{repo} exists and is public; --private makes only new repositories private",
            hint=f"make it private at {endpoint()}/{repo}/settings, or --hub-repo OTHER",
        )
    names = {sibling.rfilename for sibling in info.siblings or []}
    files = {name for name in names if name not in _SAYS_NOTHING and not TRAINING.fullmatch(name)}
    is_ours = "vitft" in (info.tags or []) or names >= {"recipe.yaml", "results.json", "environment.json"}
    if files and not is_ours and not (hub.force or hub.create_pr):
        some = ", ".join(sorted(files)[:3])
        raise HubError(
            f"{repo} contains files that vitft did not push ({some}), and will not be overwritten",
            allowed="a new or empty repository, or one that vitft pushed to",
            hint="--hub-repo OTHER, or --force to push anyway (its history keeps the old files)",
        )


def _has_revision(api: Any, repo: str, revision: str) -> bool:
    """Return whether a branch exists; raise HubError for a missing reference that cannot be created."""
    refs = patiently(lambda: api.list_repo_refs(repo, include_pull_requests=revision.startswith("refs/pr/")))
    there = {each.name for each in refs.branches} | {each.ref for each in refs.pull_requests or []}
    if revision not in there and revision.startswith("refs/"):
        raise HubError(f"{repo} has no {revision}", allowed=", ".join(sorted(there)), hint="--hub-revision BRANCH")
    return revision in there


def _may_not_write(repo: str) -> HubError:
    return HubError(
        f"this token has no write access to {repo}",
        hint="create one that has it at https://huggingface.co/settings/tokens, then: hf auth login (or set HF_TOKEN); "
        "or use another repository: --hub-repo OWNER/NAME",
    )


def _likely_name(text: str) -> str:
    parts = [re.sub(r"[-.]{2,}", "-", re.sub(r"[^A-Za-z0-9_.\-]+", "-", part)).strip("-._") for part in text.split("/")]
    return "/".join([part[:96].rstrip("-._") for part in parts if part][-2:]) or "OWNER/NAME"


def _without_token(text: str) -> str:
    return re.sub(r"hf_\w+", "hf_...", text)
