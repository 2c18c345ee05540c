"""Drives a headless Chromium over its DevTools protocol, through a pair of pipes.

Pipes rather than a WebSocket: nothing listens, and nothing but Python's own library is needed.
One thread uses a Browser and its pages.
"""

import base64
import json
import os
import select
import shutil
import signal
import tempfile
import time

CALL_TIMEOUT_S = 20
KEYS = {  # name: (key code, text it types)
    "Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "Backspace": (8, ""),
    "ArrowUp": (38, ""), "ArrowDown": (40, ""), "ArrowLeft": (37, ""), "ArrowRight": (39, ""),
    " ": (32, " "),
}
SHIFT, CTRL = 8, 2


class Browser:
    """One Chromium process with a profile of its own."""

    def __init__(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise SystemExit("page_test needs Chromium: install Debian's package chromium")
        self.profile = tempfile.mkdtemp(prefix="augur_page_test_")
        self.pages = {}
        self.next_id = 0
        self.unread = b""
        self.pid = self._spawn(program)

    def _spawn(self, program):
        theirs_in, self.to_browser = os.pipe()
        self.from_browser, theirs_out = os.pipe()
        # DevTools reads from descriptor 3 and writes to 4; none of ours may lie there by chance.
        high_in, high_out = (os.dup2(fd, 200 + i) for i, fd in enumerate((theirs_in, theirs_out)))
        null = os.open(os.devnull, os.O_RDWR)
        arguments = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-extensions", "--disable-dev-shm-usage", "--mute-audio", "--lang=en-US",
            "--force-device-scale-factor=1", "--remote-debugging-pipe",
            f"--user-data-dir={self.profile}", "about:blank",
        ]
        dup2 = os.POSIX_SPAWN_DUP2
        pid = os.posix_spawn(program, arguments, dict(os.environ, HOME=self.profile), file_actions=[
            (dup2, high_in, 3), (dup2, high_out, 4), (dup2, null, 0), (dup2, null, 1),
            (dup2, null, 2)], setpgroup=0)
        for fd in (theirs_in, theirs_out, high_in, high_out, null):
            os.close(fd)
        return pid

    def close(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.to_browser)
        os.close(self.from_browser)
        shutil.rmtree(self.profile, ignore_errors=True)

    def new_page(self):
        """A tab that shares no storage with others."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, session["sessionId"], context)
        self.pages[page.session] = page
        page.prepare()
        return page

    def call(self, method, session=None, **parameters):
        self.next_id += 1
        message = {"id": self.next_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to_browser, data):]
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            answer = self._receive(deadline)
            if answer is None:
                raise TimeoutError(f"{method}: no answer in {CALL_TIMEOUT_S} s")
            if answer.get("id") == self.next_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._take_event(answer)

    def pump(self, seconds):
        """Takes the events that come within `seconds`."""
        deadline = time.monotonic() + seconds
        while (event := self._receive(deadline)) is not None:
            self._take_event(event)

    def _receive(self, deadline):
        while b"\0" not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.from_browser], [], [], left)[0]:
                return None
            data = os.read(self.from_browser, 1 << 16)
            if not data:
                raise RuntimeError("Chromium has ended")
            self.unread += data
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def _take_event(self, event):
        page = self.pages.get(event.get("sessionId"))
        if page is not None and "method" in event:
            page.take_event(event["method"], event["params"])


class Page:
    """One tab, and what it complained of and asked for since it was made."""

    def __init__(self, browser, session, context):
        self.browser, self.session, self.context = browser, session, context
        self.complaints = []  # errors and warnings of the console, exceptions
        self.failures = []    # requests that failed, with their reason
        self.urls = []        # of all requests

    def prepare(self):
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.set_size(1280, 800)

    def call(self, method, **parameters):
        return self.browser.call(method, session=self.session, **parameters)

    def close(self):
        del self.browser.pages[self.session]
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)

    def take_event(self, method, parameters):
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", str(details)))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.complaints.append(str([arg.get("value") for arg in parameters["args"]]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.urls.append(parameters["request"]["url"])
        elif method == "Network.loadingFailed" and not parameters.get("canceled"):
            self.failures.append(parameters["errorText"])

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression):
        """The value of a JavaScript expression; of a promise, what it resolves to."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                           returnByValue=True, userGesture=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, seconds=15):
        """Until a JavaScript expression is true; returns its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body?.innerText")
                raise AssertionError(f"not true after {seconds} s: {expression}\n{text}\n"
                                     f"{self.complaints}")
            self.browser.pump(0.02)
        return value

    def set_size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)

    def set_media(self, **features):
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": name.replace("_", "-"), "value": value} for name, value in features.items()])

    def press(self, key, modifiers=0):
        code, text = KEYS[key]
        if modifiers & CTRL:
            text = ""
        event = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        if text:
            event["text"] = text
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **event)
        event.pop("text", None)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """A click of the mouse in the middle of an element that is in sight."""
        x, y = self.evaluate(f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: 'nearest'}});
            const box = node.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    def accessible_nodes(self):
        """(role, name) of all that assistive programs see."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(node["role"]["value"], node.get("name", {}).get("value", ""))
                for node in nodes if not node["ignored"]]

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
