"""Notebook kernels, driven as JupyterLab drives them: REST to start one, a websocket to talk."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import websocket

START_SECONDS = 120
CELL_SECONDS = 300


class Kernel:
    """A running kernel. `run` executes code and returns all that it showed."""

    def __init__(self, url: str, token: str, kernel: str) -> None:
        self._session = uuid.uuid4().hex
        self._socket = websocket.create_connection(
            f"ws://{urlsplit(url).netloc}/api/kernels/{kernel}/channels?token={token}",
            timeout=CELL_SECONDS,
        )

    def run(self, code: str) -> str:
        """Execute a cell; raise AssertionError with the traceback if it fails."""
        request = uuid.uuid4().hex
        header = {
            "msg_id": request, "msg_type": "execute_request", "username": "", "version": "5.3",
            "session": self._session,
        }  # fmt: skip
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False,
                   "user_expressions": {}, "stop_on_error": True}  # fmt: skip
        self._socket.send(json.dumps({
            "header": header, "parent_header": {}, "metadata": {}, "content": content,
            "channel": "shell", "buffers": [],
        }))  # fmt: skip
        shown = []
        while True:
            message = json.loads(self._socket.recv())
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                shown.append(content["text"])
            elif kind in ("execute_result", "display_data"):
                shown.append(content["data"].get("text/plain", "") + "\n")
            elif kind == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return "".join(shown)

    def run_notebook(self, path: Path) -> list[str]:
        """Execute the cells of a notebook; return what each cell of code showed."""
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [self.run("".join(c["source"])) for c in cells if c["cell_type"] == "code"]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def kernel(url: str, name: str) -> Iterator[Kernel]:
    """Start a kernel (`python3` or `ir`) behind JupyterLab's address, and end it."""
    parts = urlsplit(url)
    token = parse_qs(parts.query)["token"][0]

    def ask(method: str, path: str = "", body: Any = None) -> Any:
        connection = http.client.HTTPConnection(parts.netloc, timeout=START_SECONDS)
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        connection.request(method, f"/api/kernels{path}", body=data, headers=headers)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        assert response.status < http.client.BAD_REQUEST, answer
        return json.loads(answer) if answer else None

    started = ask("POST", body={"name": name})["id"]
    try:
        talking = Kernel(url, token, started)
        try:
            yield talking
        finally:
            talking.close()
    finally:
        ask("DELETE", f"/{started}")
