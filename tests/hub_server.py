"""A hub on this machine, as far as models are pushed to it: files by LFS, and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repo:
    """files: by path. commits: what each changed."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[tuple[str, str]]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        """The latest commit."""
        return f"{len(self.commits):040x}"


@dataclass
class Hub:
    """asked: method and path of all requests. before: is called with each; returns a status in
    place of the right answer, or None. role: of the token."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    before: Callable[[str, str], int | None] = lambda how, path: None
    role: str = "write"

    def uploads(self) -> int:
        """Return how many files were sent by LFS."""
        return sum(how == "PUT" for how, _ in self.asked)

    def answer(self, how: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        if path == "/api/whoami-v2":
            said = {"accessToken": {"role": self.role, "displayName": "t"}, "type": "access_token"}
            return 200, {"name": "org", "type": "user", "orgs": [], "auth": said}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.startswith("/lfs/") and how == "PUT":
            assert hashlib.sha256(body).hexdigest() == path[5:]
            self.objects[path[5:]] = body
            return 200, {}
        if path == "/api/repos/create":
            said = json.loads(body)
            private = said.get("private", said.get("visibility") == "private")
            name = f"{said['organization']}/{said['name']}"
            if name in self.repos:
                return 409, {"error": "exists", "url": f"{self.url}/{name}"}
            self.repos[name] = Repo(private)
            return 200, {"url": f"{self.url}/{name}"}
        match = re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w-]+)(?:\.git)?(?:/(.*))?", path)
        repo = self.repos.get(match[1]) if match else None
        if match is None or repo is None:
            return 404, {"error": "Repository not found"}
        return self._of_repo(match[1], repo, match[2] or "", body)

    def _of_repo(self, name: str, repo: Repo, what: str, body: bytes) -> tuple[int, Any]:
        if what in ("", "revision/main"):
            siblings = [{"rfilename": path} for path in sorted(repo.files)]
            return 200, {
                "id": name, "sha": repo.sha, "private": repo.private, "siblings": siblings,
                "visibility": "private" if repo.private else "public",
            }  # fmt: skip
        if what == "preupload/main":
            paths = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            files = [
                {"path": p, "uploadMode": mode[p.endswith(".safetensors")], "shouldIgnore": False}
                for p in paths
            ]
            return 200, {"files": files}
        if what == "info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            for it in objects:
                if it["oid"] not in self.objects:
                    it["actions"] = {"upload": {"href": f"{self.url}/lfs/{it['oid']}"}}
            return 200, {"transfer": "basic", "objects": objects}
        if what == "commit/main":
            return self._commit(name, repo, [json.loads(line) for line in body.splitlines()])
        return 404, {"error": what}

    def _commit(self, name: str, repo: Repo, lines: list[Any]) -> tuple[int, Any]:
        head, *changes = lines
        if head["value"].get("parentCommit") not in (None, repo.sha):
            return 412, {"error": "a commit has happened since"}
        done = []
        for change in changes:
            value, path = change["value"], change["value"]["path"]
            if change["key"] == "file":
                repo.files[path] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                repo.files[path] = self.objects[value["oid"]]
            else:
                del repo.files[path]
            done.append((change["key"], path))
        repo.commits.append(done)
        return 200, {"commitOid": repo.sha, "commitUrl": f"{self.url}/{name}/commit/{repo.sha}"}


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve on a free port until the end."""
    it = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            it.asked.append((self.command, path))
            if not path.startswith("/lfs/"):
                it.tokens.add(self.headers.get("Authorization"))
            if status := it.before(self.command, path):
                answer: Any = {"error": "no"}
            else:
                status, answer = it.answer(self.command, path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    it.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield it
    server.shutdown()
    server.server_close()


if __name__ == "__main__":  # to try it by hand
    with serving() as hub:
        print(f"export HF_ENDPOINT={hub.url} HF_TOKEN=hf_x HF_HUB_DISABLE_XET=1", flush=True)
        threading.Event().wait()
