"""A real browser, Chromium without a window, driven by its DevTools protocol over a websocket."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket
from life_support import until

# Generous: others may use the machine as well.
PAGE_SECONDS = 180
OPENINGS = 8
# A page is whole when it has asked for nothing new for so long.
QUIET_SECONDS = 0.3


class Browser:
    """One tab. Keeps what went wrong: answers of 400 and above, and errors of scripts."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=PAGE_SECONDS)
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
        """Open a page, and wait until it and all that it asks for are there.

        Chromium ends all requests whenever an interface of the machine comes or goes, as they do
        with other people's containers: such a page is opened again.
        """
        before = len(self.faults)
        for _ in range(OPENINGS):
            self._open_page(url)
            if not any("ERR_NETWORK_CHANGED" in fault for fault in self.faults[before:]):
                return
            del self.faults[before:]
        raise AssertionError(f"the network changed {OPENINGS} times while {url} was opened")

    def _open_page(self, url: str) -> None:
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
def browser(folder: Path, authority: Path) -> Iterator[Browser]:
    """Have a browser that trusts a certificate authority, and no other state than `folder`."""
    database = folder / ".pki" / "nssdb"
    database.mkdir(parents=True)
    named = ["-d", f"sql:{database}"]
    for command in (
        ["-N", "--empty-password"],
        ["-A", "-t", "C,,", "-n", "gateway", "-i", str(authority)],
    ):
        subprocess.run(["certutil", *named, *command], check=True, capture_output=True)
    profile = folder / "profile"
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = subprocess.Popen(
        [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server",
            "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
            "--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=1400,1000",
            f"--user-data-dir={profile}", "about:blank",
        ],
        env={**kept, "HOME": str(folder)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        port = profile / "DevToolsActivePort"
        until(lambda: port.exists() and port.read_text().count("\n"), "the browser starts")
        number = port.read_text().split()[0]
        tab = Browser(_tab(number))
        with contextlib.closing(tab):
            yield tab
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _tab(port: str) -> str:
    import http.client

    def look() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
        connection.request("GET", "/json/list")
        pages = [item for item in json.load(connection.getresponse()) if item["type"] == "page"]
        connection.close()
        return str(pages[0]["webSocketDebuggerUrl"]) if pages else ""

    return until(look, "the browser's first tab")
