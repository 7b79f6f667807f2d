"""A headless chromium, driven by the DevTools protocol over a pipe. It needs no package but chromium itself."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"]
PATIENCE = 20
KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Home": 36, "End": 35}


def program():
    """The chromium of this machine, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser process with a profile of its own."""

    def __init__(self):
        self._profile = tempfile.mkdtemp(prefix="gte-small-chromium-")
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        for end in (to_browser, from_browser):
            os.set_inheritable(end, True)
        # Chromium reads from descriptor 3 and writes to 4.
        script = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "chromium", program(), *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            pass_fds=[to_browser, from_browser], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self._numbers = itertools.count(1)
        self._answers, self._events, self._news = {}, [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest = b""
        with contextlib.suppress(OSError):
            while block := os.read(self._from, 1 << 20):
                *messages, rest = (rest + block).split(b"\0")
                with self._news:
                    for message in map(json.loads, messages):
                        if "id" in message:
                            self._answers[message["id"]] = message
                        else:
                            self._events.append(message)
                    self._news.notify_all()

    def send(self, method: str, session: str = "", **parameters) -> dict:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        with self._news:
            assert self._news.wait_for(lambda: number in self._answers, PATIENCE), f"chromium does not answer {method}"
            answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer.get('error')}"
        return answer["result"]

    def events(self, session: str, method: str) -> list:
        with self._news:
            return [e["params"] for e in self._events if e.get("sessionId") == session and e["method"] == method]

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self.send("Browser.close")
            self._process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        shutil.rmtree(self._profile, ignore_errors=True)


class Page:
    """A window of a browser, with storage of its own. What it says on the console is kept."""

    def __init__(self, browser: Browser, url: str, width: int = 1280, height: int = 900, scheme: str = "light", scale: float = 1):
        self.browser = browser
        self._context = browser.send("Target.createBrowserContext")["browserContextId"]
        target = browser.send("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def send(self, method: str, **parameters) -> dict:
        return self.browser.send(method, self.session, **parameters)

    def run(self, expression: str):
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, why: str = "") -> None:
        """Waits until a JavaScript expression is true, or fails with what the page says."""
        until = time.monotonic() + PATIENCE
        while True:
            if self.run(f"!!({expression})"):
                return
            assert time.monotonic() < until, f"never true: {why or expression}; the page says: {self.text('body')[:1500]}"
            time.sleep(0.03)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def texts(self, selector: str) -> list:
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)")

    def type(self, text: str) -> None:
        """Types as a keyboard does, into what has the focus."""
        for character in text:
            self.send("Input.dispatchKeyEvent", type="keyDown", key=character, text=character)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=character)

    def press(self, key: str, times: int = 1, shift: bool = False) -> None:
        for _ in range(times):
            common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
            text = {"Enter": "\r", " ": " "}.get(key)
            self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **({"text": text} if text else {}))
            self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, selector: str) -> None:
        """Clicks in the middle of an element, once it is at rest and nothing covers it."""
        place = (f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null; e.scrollIntoView({{block: 'center'}}); "
                 "const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2, top = document.elementFromPoint(x, y); "
                 "return top && (e.contains(top) || top.contains(e)) ? [x, y] : null; })()")
        until, at, before = time.monotonic() + PATIENCE, None, 0
        while at is None or at != before:
            assert time.monotonic() < until, f"{selector} can't be clicked; the page says: {self.text('body')[:1500]}"
            time.sleep(0.1)
            before, at = at, self.run(place)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    def focused(self) -> str:
        """What has the focus, as a screen reader names it."""
        return self.run("(() => { const e = document.activeElement; return e.getAttribute('aria-label') "
                        "|| (e.labels && e.labels[0] && e.labels[0].textContent.trim()) || e.textContent.trim(); })()")

    def complaints(self) -> list:
        """Errors of scripts, and what the browser refused, as its console lists them."""
        thrown = [event["exceptionDetails"]["text"] for event in self.browser.events(self.session, "Runtime.exceptionThrown")]
        said = [event["entry"]["text"] for event in self.browser.events(self.session, "Log.entryAdded") if event["entry"]["level"] == "error"]
        return thrown + said

    def screenshot(self, whole: bool = True) -> bytes:
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def close(self) -> None:
        self.browser.send("Target.disposeBrowserContext", browserContextId=self._context)
