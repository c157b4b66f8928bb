"""A hub on loopback that speaks as much of the protocol as an upload and a download need."""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from core.errors import UserError
from core.inference.exported import CARD, SETTINGS, WEIGHTS, write_export
from core.inference.loading import read_model
from core.inference.model_hub import is_hub_id, push
from tests.commands import environment

COMMIT = "0" * 40
PUSH_AND_LOAD = """
import sys
from pathlib import Path
from core import load_model
from core.inference.model_hub import push
print(push(Path(sys.argv[1]), "owner/name"))
print(load_model("owner/name").checkpoint.fingerprint)
"""


class Hub(BaseHTTPRequestHandler):
    stored: dict[str, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.stored[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        address = f"http://{self.headers['Host']}/owner/name"
        asked = json.loads(body)["files"] if self.path.endswith("/preupload/main") else []
        commit = {"commitUrl": f"{address}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
        files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in asked]
        self.answer({"url": address, "id": "owner/name", "files": files, "warnings": [], "errors": [], **commit})

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            files = [(name, hashlib.sha1(content).hexdigest(), len(content)) for name, content in self.stored.items()]
            self.answer([{"type": "file", "path": name, "oid": oid, "size": size} for name, oid, size in files])
            return
        if "/resolve/" not in self.path:
            siblings = [{"rfilename": name} for name in self.stored]
            self.answer({"id": "owner/name", "sha": COMMIT, "siblings": siblings, "private": False})
            return
        content = self.stored[self.path.rpartition("/")[2]]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", hashlib.sha256(content).hexdigest())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 (names of http.server)

    def answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Address of a hub, and the files that it stores."""
    stored: dict[str, bytes] = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"stored": stored}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", stored
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def exported(trained: Path, tmp_path: Path) -> Path:
    path = trained / "checkpoint_best.pth"
    write_export(tmp_path / "exported", read_model(path), "---\ntags: []\n---\n# A card\n", source=path)
    (tmp_path / "exported" / "notes.txt").write_text("of the user")
    return tmp_path / "exported"


def test_what_is_pushed_loads_by_its_id(
    hub: tuple[str, dict[str, bytes]], exported: Path, trained: Path, tmp_path: Path
) -> None:
    address, stored = hub
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PUSH_AND_LOAD, exported], capture_output=True, text=True, env=environment(settings)
    )
    assert done.returncode == 0, done.stderr
    fingerprint = read_model(trained / "checkpoint_best.pth").checkpoint.fingerprint
    assert done.stdout.split() == [f"{address}/owner/name", fingerprint]
    assert stored == {name: (exported / name).read_bytes() for name in (WEIGHTS, SETTINGS, CARD)}


def test_without_a_hub_there_is_one_clear_line(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"owner/name: the hub did not take it \(.*the export itself is complete"):
        push(exported, "owner/name")
    with pytest.raises(UserError, match="is not the name of a repository; write it as owner/name"):
        push(exported, "no name")


def test_which_names_may_be_of_the_hub() -> None:
    assert is_hub_id("OpenGVLab/InternVL3-1B-hf")
    assert not any(map(is_hub_id, ("name", "output/demo/final", "/a/b", "../b", "a/b c", "a" * 96 + "/b")))
