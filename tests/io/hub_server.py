"""A small Hugging Face Hub on the loopback: repositories, commits, files, as `huggingface_hub` asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What is on it: files by name of each commit, the newest last, by repository."""

    url: str = ""
    repos: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Tests print nothing."""

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"POST {path}")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
            there = name in self.hub.repos
            self.hub.repos.setdefault(name, [])
            self.hub.private.setdefault(name, bool(asked.get("private")) or asked.get("visibility") == "private")
            self._json({"url": f"{self.hub.url}/{name}", "name": name}, status=409 if there else 200)
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(body)["files"]
            self._json(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
            )
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._json({"error": f"nothing at {path}"}, status=404)

    def _commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        commits = self.hub.repos[repo]
        files = dict(commits[-1][1]) if commits else {}
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        commits.append((sha, files))
        self._json({"commitOid": sha, "commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "hookOutput": ""})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/([^/]+))?", path):
            self._with(found[1], found[3], lambda sha, files: self._info(found[1], sha, files))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._with(found[1], found[2], lambda sha, files: self._json([_entry(*item) for item in files.items()]))
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._with(found[1], found[2], lambda sha, files: self._file(sha, files.get(found[3])))
        else:
            self._json({"error": f"nothing at {path}"}, status=404)

    def _with(self, repo: str, revision: str | None, answer: Any) -> None:
        commits = self.hub.repos.get(repo)
        if not commits:
            self._json({"error": "Repository not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
            return
        if revision in (None, "main"):
            answer(*commits[-1])
            return
        for sha, files in commits:
            if sha == revision:
                answer(sha, files)
                return
        self._json({"error": "Invalid rev id"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})

    def _info(self, repo: str, sha: str, files: dict[str, bytes]) -> None:
        siblings = [{"rfilename": name} for name in files]
        self._json({"_id": "1", "id": repo, "modelId": repo, "sha": sha, "siblings": siblings, "private": False})

    def _file(self, sha: str, content: bytes | None) -> None:
        if content is None:
            self._json({"error": "Entry not found"}, status=404, headers={"X-Error-Code": "EntryNotFound"})
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", sha)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _json(self, answer: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
