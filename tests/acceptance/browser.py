"""A real browser, Chromium without a window, driven by its DevTools protocol over a websocket.

It has a network of its own, from which one port of this machine is reached and nothing else: in the
machine's network it ends all requests whenever an interface comes or goes, as they do with the
containers of other tests.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket
from life_support import until

# Generous: others may use the machine as well.
PAGE_SECONDS = 180
# Of its own network, where nobody else has ports.
DEVTOOLS_PORT = 9222
# A page is whole when it has asked for nothing new for so long.
QUIET_SECONDS = 0.3


# As Debian, other systems and Google call it.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program() -> str:
    """Return the browser to start.

    One that cannot even tell its version is only a word on how to get it: so it is on Ubuntu.
    """
    for path in filter(None, map(shutil.which, PROGRAMS)):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    names = ", ".join(PROGRAMS)
    raise AssertionError(f"There is no browser for this test; install one of {names}.")


class Browser:
    """One tab. Keeps what went wrong: answers of 400 and above, and errors of scripts."""

    def __init__(self, devtools: Path) -> None:
        self._socket = websocket.create_connection(
            until(lambda: _tab(devtools), "the browser's first tab"),
            socket=_connected(devtools), timeout=PAGE_SECONDS,
        )  # fmt: skip
        self._numbers = itertools.count(1)
        # What the pages ask for and do not have yet: whose page, and its address.
        self._open: dict[str, tuple[str, str]] = {}
        self._page = ""
        self._loaded = False
        self._last = 0.0
        self.faults: list[str] = []
        self.answers: dict[str, int] = {}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End the talk with the browser."""
        self._socket.close()

    def _call(self, method: str, **values: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": values}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, f"{method} {values}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        kind, of = message.get("method", ""), message.get("params", {})
        if kind == "Network.requestWillBeSent":
            self._open[of["requestId"]] = of["loaderId"], of["request"]["url"]
            self._last = time.monotonic()
        elif kind == "Network.responseReceived":
            status, url = of["response"]["status"], of["response"]["url"]
            self.answers[url] = status
            if status >= 400:
                self.faults.append(f"{status} {url}")
        elif kind in ("Network.loadingFinished", "Network.loadingFailed"):
            _, url = self._open.pop(of["requestId"], ("", ""))
            if kind.endswith("Failed") and not of.get("canceled"):
                self.faults.append(f"{of['errorText']} {url}")
        elif kind == "Page.loadEventFired":
            self._loaded = True
        elif kind == "Runtime.exceptionThrown":
            details = of["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.faults.append(f"{text} in {details.get('url')}")

    def _listen(self, seconds: float) -> None:
        self._socket.settimeout(seconds)
        with contextlib.suppress(websocket.WebSocketTimeoutException):
            self._note(json.loads(self._socket.recv()))
        self._socket.settimeout(PAGE_SECONDS)

    def go(self, url: str) -> None:
        """Open a page, and wait until it and all that it asks for are there."""
        self._loaded = False
        self._last = time.monotonic()
        self._page = self._call("Page.navigate", url=url).get("loaderId", self._page)
        self.settle(url)

    def settle(self, what: str) -> None:
        """Wait until the page is loaded and asks for nothing any more."""
        end = time.monotonic() + PAGE_SECONDS
        while not self._loaded or self._asks() or time.monotonic() - self._last < QUIET_SECONDS:
            assert time.monotonic() < end, f"{what} is still loading {self._asks()}"
            self._listen(QUIET_SECONDS / 3)
        # On a busy machine scripts pause for longer than that between what they ask for one after
        # the other; Spark's ask by jQuery, which counts what it has not worked off yet.
        self.wait_for("!window.jQuery || jQuery.active === 0", seconds=PAGE_SECONDS)

    def _asks(self) -> list[str]:
        """Return what this page still waits for; what an earlier one did ends with it."""
        return [url for page, url in self._open.values() if page == self._page]

    def run(self, script: str) -> Any:
        """Return what a script answers in the page."""
        done = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str, *, seconds: float = 120) -> Any:
        """Wait until a script answers something true, and return that."""
        return until(lambda: self.run(script), script, seconds=seconds, pause=0.3)

    @property
    def url(self) -> str:
        """Where the page is."""
        return str(self.run("location.href"))

    def links(self) -> list[str]:
        """Return where the page's links lead, without the parts behind #."""
        return list(
            self.run("[...document.querySelectorAll('a[href]')].map(a => a.href.split('#')[0])")
        )

    def cookies(self) -> list[dict[str, Any]]:
        """Return all cookies."""
        return list(self._call("Network.getAllCookies")["cookies"])


@contextmanager
def browser(folder: Path, authority: Path, port: int) -> Iterator[Browser]:
    """Have a browser that reaches a port of this machine, and has no other state than `folder`.

    Args:
        folder: An empty one.
        authority: The certificate authority that it trusts.
        port: The port, of 127.0.0.1 there as well.
    """
    database = folder / ".pki" / "nssdb"
    database.mkdir(parents=True)
    named = ["-d", f"sql:{database}"]
    for command in (
        ["-N", "--empty-password"],
        ["-A", "-t", "C,,", "-n", "gateway", "-i", str(authority)],
    ):
        subprocess.run(["certutil", *named, *command], check=True, capture_output=True)
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = [
        program(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
        "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
        f"--remote-debugging-port={DEVTOOLS_PORT}", "--remote-allow-origins=*",
        "--window-size=1400,1000", f"--user-data-dir={folder / 'profile'}", "about:blank",
    ]  # fmt: skip
    relay = [sys.executable, str(Path(__file__).with_name("relay.py"))]
    own = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="epic-") as sockets:
        way, devtools = Path(sockets, "way"), Path(sockets, "devtools")
        inside = [f"{port}={way}", f"{devtools}={DEVTOOLS_PORT}", "--", *command]
        begun = [
            subprocess.Popen(
                line, env={**kept, "HOME": str(folder)}, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for line in ([*relay, f"{way}={port}"], [*own, *relay, *inside])
        ]  # fmt: skip
        try:
            with contextlib.closing(Browser(devtools)) as tab:
                yield tab
        finally:
            for process in begun:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait()


def _connected(path: Path) -> socket.socket:
    way = socket.socket(socket.AF_UNIX)
    way.settimeout(PAGE_SECONDS)
    try:
        way.connect(str(path))
    except OSError:
        way.close()
        raise
    return way


def _tab(devtools: Path) -> str:
    """Return the address of the browser's first tab; empty while there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", DEVTOOLS_PORT, timeout=10)
    try:
        connection.sock = _connected(devtools)
        connection.request("GET", "/json/list")
        pages = [item for item in json.load(connection.getresponse()) if item["type"] == "page"]
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return str(pages[0]["webSocketDebuggerUrl"]) if pages else ""
