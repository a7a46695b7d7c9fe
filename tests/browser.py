"""A real browser without a window, driven through its DevTools protocol on a pipe: messages of JSON that end in NUL."""

import json
import os
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from shutil import rmtree, which
from time import monotonic

TIMEOUT_S = 120.0


class Browser:
    """One page. Everything that it says on its console or asks of the network is kept."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session = None
        self.console = []
        self.requests = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _next(self):
        deadline = monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            ready, _, _ = select([self._from], [], [], max(0.0, deadline - monotonic()))
            assert ready, f"the browser says nothing for {TIMEOUT_S:g} s"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(raw)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method, event):
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(each.get("value")) for each in event["args"]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(event["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif method == "Log.entryAdded":
            self.console.append(event["entry"]["text"])

    def open(self, path, fragment=""):
        # Another fragment alone would not load the page again.
        for url in "about:blank", f"{path.as_uri()}{fragment}":
            self.loaded = False
            self.call("Page.navigate", url=url)
            while not self.loaded:
                self._next()

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def texts(self, selector):
        """The text of every element that is shown."""
        query = f"[...document.querySelectorAll({json.dumps(selector)})].filter(one => one.checkVisibility())"
        return self.evaluate(f"{query}.map(one => one.textContent.replace(/\\s+/g, ' ').trim())")

    def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def look(self, *, width=1280, height=900, scheme="light", media="screen"):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def screenshot(self):
        """All of the page, as base64 of a PNG."""
        return self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]


@contextmanager
def browser():
    """In a network namespace without any link, so that nothing it might ask for can leave."""
    program = which("chromium")
    assert program, "not installed: chromium (make setup installs it)"
    home = Path(tempfile.mkdtemp(prefix="nodenet-browser-"))
    for_browser, to_browser = os.pipe()
    from_browser, by_browser = os.pipe()
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    arguments += ["--remote-debugging-pipe", f"--user-data-dir={home}", "--no-first-run", "--disable-extensions"]
    # The pipe is what it finds at 3 and 4; where ours is now may be one of them.
    script = f'exec 13<&{for_browser} 14>&{by_browser}; exec 3<&13 4>&14; exec "$@"'
    process = subprocess.Popen(
        ["unshare", "--net", "bash", "-c", script, "bash", program, *arguments],
        pass_fds=(for_browser, by_browser),
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(for_browser)
    os.close(by_browser)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        os.close(to_browser)
        os.close(from_browser)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)  # it ends with its pipe
        process.kill()
        process.wait()
        rmtree(home, ignore_errors=True)
