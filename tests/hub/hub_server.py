"""A Hub on 127.0.0.1: the part of its HTTP protocol that the clients speak here, with faults to order and a log.

Repositories of models and datasets with branches, commits, large files, pull requests; tokens that write, read or are
none; gated and private repositories. ``Fault`` makes any stage answer with an error, cut the line, lose its reply
after the work is done, be slow, or hang.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".png", ".parquet", ".bin")
DATE = "2026-01-02T03:04:05.000Z"


@dataclass
class User:
    name: str
    role: str = "write"
    orgs: dict[str, str] = field(default_factory=dict)


@dataclass
class Commit:
    oid: str
    title: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    kind: str
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, list[Commit]] = field(default_factory=dict)  # oldest first

    def head(self, revision: str) -> Commit | None:
        for commits in self.branches.values():
            for commit in commits:
                if commit.oid == revision:
                    return commit
        commits = self.branches.get(revision)
        return commits[-1] if commits else None

    def add(self, revision: str, files: dict[str, bytes], title: str = "add files", message: str = "") -> Commit:
        commits = self.branches.setdefault(revision, [])
        oid = hashlib.sha1(f"{self.id}{revision}{len(commits)}{title}{message}".encode()).hexdigest()
        commits.append(Commit(oid, title, message, files))
        return commits[-1]

    @property
    def card(self) -> dict[str, Any]:
        head = self.head("main")
        text = (head.files.get("README.md", b"") if head else b"").decode()
        match = re.match(r"---\n(.*?)\n---", text, re.S)
        return yaml.safe_load(match[1]) if match else {}


@dataclass
class Fault:
    """What goes wrong at a stage, or at the download of the file of this name.

    ``kind``: a status such as ``503``; ``cut`` (half the reply, then the line breaks); ``lose`` (the work is done, no
    reply comes); ``drop`` (the line breaks before the work is done); ``slow`` (a reply after ``seconds``); ``flip``
    (the last bit of the body is wrong), ``flip-inside`` (one in its first half).
    """

    stage: str
    kind: int | str
    times: int = 1_000_000
    seconds: float = 1.0
    retry_after: str | None = None


@dataclass
class Request:
    stage: str
    method: str
    path: str
    token: str | None
    time: float
    headers: dict[str, str]


class Refused(Exception):  # noqa: N818 - an answer
    def __init__(self, status: int, text: str, code: str = "") -> None:
        self.status, self.text, self.code = status, text, code


class Hub:
    """The state of the server."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.renamed: dict[tuple[str, str], str] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.has_shards = False
        self.lock = threading.RLock()
        self.url = ""

    def make(self, kind: str, id: str, files: dict[str, bytes] | None = None, **options: Any) -> Repo:
        repo = self.repos[kind, id] = Repo(kind, id, **options)
        repo.add("main", {".gitattributes": b"", **(files or {})}, "initial commit")
        return repo

    def titles(self, repo: str = "me/leaves", branch: str = "main") -> list[str]:
        """Return the titles of what was pushed."""
        found = self.repos.get(("model", repo))
        return [each.title for each in found.branches[branch][1:]] if found else []

    def stages(self, stage: str | None = None) -> list[Request]:
        return [each for each in self.log if stage in (None, each.stage)]

    def fault_at(self, stage: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.stage == stage and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    status: int
    body: bytes
    head: dict[str, str]

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def answer(self) -> None:
        target = urlsplit(self.path)
        self.query = parse_qs(target.query)
        stage, work = self.find(unquote(target.path))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.log.append(Request(stage, self.command, self.path, token, time.time(), dict(self.headers)))
        fault = (
            self.hub.fault_at(stage)
            or (self.command == "GET" and self.hub.fault_at(target.path.split("/")[-1]))
            or None
        )
        if fault and fault.kind == "meanwhile":
            repo = next(iter(self.hub.repos.values()))
            repo.add("main", repo.head("main").files | {"theirs.txt": b"theirs"}, "meanwhile")  # type: ignore[union-attr]
        if fault and fault.kind == "drop":
            self.break_line()
            return
        sent = self.receive()
        self.status, self.body, self.head = 200, b"", {"Content-Type": "application/json"}
        if fault and isinstance(fault.kind, int):
            self.refuse(Refused(fault.kind, f"told to answer {fault.kind}"))
            if fault.retry_after is not None:
                self.head["Retry-After"] = fault.retry_after
        else:
            try:
                with self.hub.lock:
                    work(sent, self.hub.users.get(token or ""))
            except Refused as refused:
                self.refuse(refused)
        self.reply(fault)

    def receive(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def refuse(self, refused: Refused) -> None:
        self.status = refused.status
        self.body = json.dumps({"error": refused.text}).encode()
        self.head = {"Content-Type": "application/json"}
        if refused.code:
            self.head |= {"X-Error-Code": refused.code, "X-Error-Message": refused.text}

    def reply(self, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        if kind == "lose":
            self.break_line()
            return
        if kind == "slow":
            time.sleep(fault.seconds)  # type: ignore[union-attr]
        body = self.body
        if kind in ("flip", "flip-inside") and body:
            place = len(body) - 1 if kind == "flip" else len(body) // 3
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        self.send_response(self.status)
        for name, value in self.head.items():
            self.send_header(name, value)
        if "Content-Length" not in self.head:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if kind == "cut" else body)
        if kind == "cut":
            self.wfile.flush()
            self.break_line()

    def break_line(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def say(self, content: object) -> None:
        self.body = json.dumps(content).encode()

    # --- which stage a path is -------------------------------------------------------------------------------

    def find(self, path: str) -> tuple[str, Callable[[bytes, User | None], None]]:
        for pattern, stage, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and (stage != "commit" or self.command == "POST"):
                return stage, partial(getattr(self, f"on_{name}"), **match.groupdict())
        return "unknown", self.on_unknown

    def on_unknown(self, sent: bytes, user: User | None) -> None:
        raise Refused(404, f"this hub knows no {self.command} {self.path}")

    # --- people and repositories -----------------------------------------------------------------------------

    def on_whoami(self, sent: bytes, user: User | None) -> None:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in user.orgs.items()]
        access = {"displayName": "my token", "role": user.role}
        self.say({"type": "user", "name": user.name, "orgs": orgs, "auth": {"accessToken": access}})

    def on_create(self, sent: bytes, user: User | None) -> None:
        wish = json.loads(sent)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        id = f"{wish.get('organization') or user.name}/{wish['name']}"
        kind = wish.get("type", "model")
        if (kind, id) in self.hub.repos:
            self.status = 409
            self.say({"error": "You already created this model repo", "url": f"{self.hub.url}/{id}"})
            return
        if not self.may_write(user, id):
            raise Refused(403, "You don't have the rights to create a model under this namespace")
        self.hub.make(kind, id, private=wish.get("visibility") == "private" or bool(wish.get("private")))
        self.say({"url": f"{self.hub.url}/{id}", "name": id, "id": id})

    def may_write(self, user: User | None, id: str) -> bool:
        owner = id.split("/")[0]
        return (
            user is not None
            and user.role != "read"
            and (owner == user.name or user.orgs.get(owner) in ("write", "admin"))
        )

    def repo(self, kind: str, id: str, user: User | None, *, content: bool = False) -> Repo:
        kind = kind.rstrip("s")
        found = self.hub.repos.get((kind, id))
        if found is None or (found.private and (user is None or found.id.split("/")[0] not in (user.name, *user.orgs))):
            raise Refused(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if content and found.gated and user is None:
            raise Refused(401, f"Access to {kind} {id} is restricted.", "GatedRepo")
        if content and found.gated and user is not None and not self.may_write(user, id):
            raise Refused(403, f"Access to {kind} {id} is restricted.", "GatedRepo")
        return found

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        head = repo.head(revision)
        if head is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return head

    def on_info(self, sent: bytes, user: User | None, kind: str, id: str, revision: str | None = None) -> None:
        if (kind.rstrip("s"), id) in self.hub.renamed:
            rest = f"/revision/{revision}" if revision else ""
            self.status = 307
            self.head["Location"] = f"/api/{kind}/{self.hub.renamed[kind.rstrip('s'), id]}{rest}"
            return
        repo = self.repo(kind, id, user)
        head = self.commit_of(repo, revision or "main")
        self.say(
            {
                "_id": "1", "id": repo.id, "modelId": repo.id, "author": repo.id.split("/")[0], "sha": head.oid,
                "private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False,
                "downloads": 0, "likes": 0, "tags": repo.card.get("tags", []), "cardData": repo.card,
                "lastModified": DATE, "createdAt": DATE,
                "siblings": [{"rfilename": name} for name in head.files],
            }
        )  # fmt: skip

    def on_auth_check(self, sent: bytes, user: User | None, kind: str, id: str, write: str | None) -> None:
        self.repo(kind, id, user)
        if write and not self.may_write(user, id):
            raise Refused(403, "You do not have write access to this repo")
        self.say({})

    def on_refs(self, sent: bytes, user: User | None, kind: str, id: str) -> None:
        repo = self.repo(kind, id, user)
        refs = [
            {"name": name.removeprefix("refs/"), "ref": name if name.startswith("refs/") else f"refs/heads/{name}",
             "targetCommit": commits[-1].oid}
            for name, commits in repo.branches.items()
        ]  # fmt: skip
        pulls = [each for each in refs if each["ref"].startswith("refs/pr/")]
        branches = [each for each in refs if not each["ref"].startswith("refs/pr/")]
        self.say({"branches": branches, "converts": [], "tags": [], "pullRequests": pulls})

    def on_branch(self, sent: bytes, user: User | None, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, user)
        if revision in repo.branches:
            raise Refused(409, "the branch exists")
        repo.branches[revision] = list(repo.branches["main"])
        self.say({})

    def on_discussions(self, sent: bytes, user: User | None, kind: str, id: str) -> None:
        repo = self.repo(kind, id, user)
        numbers = [int(name.split("/")[-1]) for name in repo.branches if name.startswith("refs/pr/")]
        found = [
            {"title": "x", "num": number, "author": {"name": "me"}, "createdAt": DATE, "status": "draft",
             "repo": {"name": id, "type": repo.kind}, "isPullRequest": True}
            for number in numbers
        ]  # fmt: skip
        self.say({"discussions": found, "count": len(found), "start": 0})

    def on_commits(self, sent: bytes, user: User | None, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, user)
        self.commit_of(repo, revision)
        self.say(
            [
                {
                    "id": each.oid,
                    "title": each.title,
                    "message": each.message,
                    "date": DATE,
                    "authors": [{"user": "me"}],
                }
                for each in reversed(repo.branches[revision])
            ]
        )

    # --- uploads ---------------------------------------------------------------------------------------------

    def on_validate(self, sent: bytes, user: User | None) -> None:
        content = json.loads(sent)["content"]
        match = re.match(r"---\n(.*?)\n---\n", content, re.S)
        errors = []
        try:
            metadata = yaml.safe_load(match[1]) if match else {}
            errors = [{"message": f'"{place}" must not be null'} for place in _nulls(metadata, "")]
            for entry in metadata.get("model-index", []):
                for result in entry["results"]:
                    missing = [key for key in ("type", "name") if not result["dataset"].get(key)]
                    errors += [{"message": f'"dataset.{key}" is required'} for key in missing]
            if not isinstance(metadata.get("license", ""), str):
                errors.append({"message": '"license" must be a string'})
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        if errors:
            self.status = 400
        self.say({"errors": errors, "warnings": []})

    def on_preupload(self, sent: bytes, user: User | None, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, user)
        if not self.may_write(user, id) and "create_pr" not in self.query:
            raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
        head = self.commit_of(repo, revision)
        files = []
        for each in json.loads(sent)["files"]:
            old = head.files.get(each["path"])
            is_large = each["path"].endswith(LARGE)
            oid = None if old is None else hashlib.sha256(old).hexdigest() if is_large else _git_hash(old)
            mode = "lfs" if is_large else "regular"
            files.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.say({"files": files})

    def on_lfs_batch(self, sent: bytes, user: User | None, id: str) -> None:
        asked, objects = json.loads(sent), []
        for each in asked["objects"]:
            answer = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.hub.blobs:
                place = f"{self.hub.url}/lfs/{each['oid']}"
                answer["actions"] = {"upload": {"href": place, "header": {}}, "verify": {"href": f"{place}/verify"}}
            objects.append(answer)
        transfer = "xet" if "xet" in asked["transfers"] else "basic"  # huggingface_hub 1.5 asks whether to use Xet
        self.say({"transfer": transfer, "objects": objects})

    def on_lfs_put(self, sent: bytes, user: User | None, oid: str) -> None:
        if hashlib.sha256(sent).hexdigest() != oid:
            raise Refused(400, "the content has another hash")
        self.hub.blobs[oid] = sent

    def on_lfs_verify(self, sent: bytes, user: User | None, oid: str) -> None:
        if oid not in self.hub.blobs:
            raise Refused(404, "not uploaded")
        self.say({})

    def on_xet_token(self, sent: bytes, user: User | None, kind: str, id: str, revision: str) -> None:
        if not self.may_write(user, id):
            raise Refused(403, "Forbidden")
        place, until = f"{self.hub.url}/cas", int(time.time()) + 3600
        self.say({"casUrl": place, "exp": until, "accessToken": "xet"})
        # huggingface_hub 1.5 reads the same from headers.
        self.head |= {"X-Xet-Cas-Url": place, "X-Xet-Token-Expiration": str(until), "X-Xet-Access-Token": "xet"}

    def on_xorb(self, sent: bytes, user: User | None) -> None:
        self.say({"was_inserted": True})

    def on_shard(self, sent: bytes, user: User | None) -> None:
        # What a shard says of its files is hf_xet's own format; the commit names them, with the hash of their content.
        self.hub.has_shards = True
        self.say({"result": 1})

    def on_commit(self, sent: bytes, user: User | None, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, user)
        lines = [json.loads(line) for line in sent.splitlines()]
        header = lines[0]["value"]
        is_pr = "create_pr" in self.query
        if not is_pr and not self.may_write(user, id):
            raise Refused(403, "Forbidden")
        head = self.commit_of(repo, revision)
        if header.get("parentCommit") not in (None, head.oid):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if self.hub.has_shards:
                        self.hub.blobs.setdefault(value["oid"], f"in xet: {value['oid']}".encode())
                    if value["oid"] not in self.hub.blobs:
                        raise Refused(400, "LFS pointer pointed to a file that does not exist")
                    files[value["path"]] = self.hub.blobs[value["oid"]]
                case "deletedFile":
                    if value["path"] not in files:
                        raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
                    del files[value["path"]]
        place = revision
        if is_pr:
            number = 1 + sum(name.startswith("refs/pr/") for name in repo.branches)
            place = f"refs/pr/{number}"
            repo.branches[place] = list(repo.branches["main"])
        made = repo.add(place, files, header["summary"], header.get("description", ""))
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{self.hub.url}/{id}/commit/{made.oid}"}
        if is_pr:
            answer["pullRequestUrl"] = f"{self.hub.url}/{id}/discussions/{number}"
        self.say(answer)

    # --- downloads -------------------------------------------------------------------------------------------

    def on_tree(self, sent: bytes, user: User | None, kind: str, id: str, revision: str, below: str | None) -> None:
        head = self.commit_of(self.repo(kind, id, user, content=True), revision)
        prefix = f"{below}/" if below else ""
        entries: dict[str, Any] = {}
        for name, content in head.files.items():
            if name.startswith(prefix):
                entries[name] = _entry(name, content)
                parent = name.rpartition("/")[0]
                if parent and parent != below:
                    entries[parent] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": parent}
        if below and not entries:
            raise Refused(404, f"{below} does not exist on {revision}", "EntryNotFound")
        self.say(list(entries.values()))

    def on_paths_info(self, sent: bytes, user: User | None, kind: str, id: str, revision: str) -> None:
        head = self.commit_of(self.repo(kind, id, user, content=True), revision)
        text = sent.decode()
        wish = json.loads(text) if text.startswith("{") else parse_qs(text)
        self.say([_entry(name, head.files[name]) for name in wish.get("paths", []) if name in head.files])

    def on_resolve(
        self, sent: bytes, user: User | None, id: str, revision: str, name: str, kind: str | None = None
    ) -> None:
        head = self.commit_of(self.repo(kind or "models", id, user, content=True), revision)
        if name not in head.files:
            self.head["X-Repo-Commit"] = head.oid
            refused = Refused(404, f"{name} does not exist", "EntryNotFound")
            self.refuse(refused)
            self.head["X-Repo-Commit"] = head.oid
            return
        content = head.files[name]
        etag = hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else _git_hash(content)
        self.head = {
            "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "X-Repo-Commit": head.oid,
            "ETag": f'"{etag}"',
        }  # fmt: skip
        if name.endswith(LARGE):
            self.head |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            self.status = 206
            self.head["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        self.body = content
        if self.command == "HEAD":
            self.head["Content-Length"] = str(len(content))


_NOT_A_NAME = "xet-write-token|revision|tree|paths-info|preupload|commit|branch|refs|auth"
_REPO = rf"/api/(?P<kind>models|datasets)/(?P<id>[^/]+(?:/(?!{_NOT_A_NAME})[^/]+)?)"
_ROUTES = (
    (r"/api/whoami-v2", "whoami", "whoami"),
    (r"/api/repos/create", "create", "create"),
    (r"/api/validate-yaml", "validate", "validate"),
    (rf"{_REPO}/auth-check(?P<write>/write)?", "auth", "auth_check"),
    (rf"{_REPO}/refs", "refs", "refs"),
    (rf"{_REPO}/branch/(?P<revision>.+)", "branch", "branch"),
    (rf"{_REPO}/discussions", "discussions", "discussions"),
    (rf"{_REPO}/commits/(?P<revision>.+)", "commits", "commits"),
    (rf"{_REPO}/preupload/(?P<revision>.+)", "preupload", "preupload"),
    (rf"{_REPO}/commit/(?P<revision>.+)", "commit", "commit"),
    (rf"{_REPO}/tree/(?P<revision>refs/[^/]+/[^/]+|[^/]+)(?:/(?P<below>.+))?", "tree", "tree"),
    (rf"{_REPO}/paths-info/(?P<revision>refs/[^/]+/[^/]+|[^/]+)", "paths", "paths_info"),
    (rf"{_REPO}/revision/(?P<revision>.+)", "info", "info"),
    (_REPO, "info", "info"),
    (r"/(?P<id>.+)\.git/info/lfs/objects/batch", "lfs-batch", "lfs_batch"),
    (r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs-put", "lfs_put"),
    (r"/lfs/(?P<oid>[0-9a-f]{64})/verify", "lfs-verify", "lfs_verify"),
    (rf"{_REPO}/xet-write-token/(?P<revision>.+)", "xet-token", "xet_token"),
    (r"/cas/v1/xorbs/default/[0-9a-f]+", "xet-xorb", "xorb"),
    (r"/cas/v1/shards", "xet-shard", "shard"),
    (
        r"/(?:(?P<kind>datasets)/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<name>.+)",
        "resolve",
        "resolve",
    ),
)


def _nulls(value: object, place: str) -> Iterator[str]:
    if value is None:
        yield place
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _nulls(each, f"{place}.{key}".strip("."))
    elif isinstance(value, list):
        for each in value:
            yield from _nulls(each, place)


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": _git_hash(content), "size": len(content), "path": name}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
