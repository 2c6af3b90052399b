"""Takes the pictures of the dashboard that the documentation shows: dashboard.png, dashboard-batch.png, dashboard-phone.png.

Usage, from the source directory: python3 docs/pictures/dashboard.py target/release/batchd [DIRECTORY]

It runs simulated providers, a daemon, and two receivers of which one is in trouble, for half a minute. Needs Chromium and
its driver (Debian: apt-get install chromium chromium-driver), and no packages.
"""

import base64
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
TOKEN = "picture-token-7f3a91"

# Name, provider, model (its name says how the batch ends), requests, how long it takes where time runs 600 times faster.
BATCHES = [
    ("nightly-evals", "openai", "gpt-5-mini-partial", 120, "1h"),
    ("translation-de", "openai", "gpt-5", 24, "30m"),
    ("moderation", "openai", "sandbox-failed", 40, "30m"),
    ("doc-questions", "openai", "sandbox-expired", 80, "30m"),
    ("embeddings", "openai", "gpt-5-nano", 512, "40m"),
    ("labels-week-48", "openai", "gpt-5-nano", 640, "7h"),
    ("ticket-triage", "anthropic", "claude-haiku-4-5", 300, "6h"),
    ("summaries", "openai", "gpt-5-mini", 900, "5h"),
]


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(503 if self.path == "/ops" else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def until(what: str, condition):
    for _ in range(300):
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"waited in vain: {what}")


class Browser:
    """As much of WebDriver as three pictures need."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}}
        session = until("the browser starts", lambda: self.ask("POST", "/session", wanted))
        self.session = f"/session/{session['sessionId']}"

    def ask(self, method: str, path: str, body: object = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["value"]

    def command(self, name: str, **parameters: object):
        return self.ask("POST", f"{self.session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def go(self, url: str) -> None:
        self.ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str):
        return self.ask("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def picture(self, path: pathlib.Path, theme: str, width: int) -> None:
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.command("Emulation.setEmulatedMedia", features=[feature])
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=760, deviceScaleFactor=1, mobile=width < 500
        )
        time.sleep(0.5)
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))


def main() -> None:
    batchd = os.path.abspath(sys.argv[1])
    to = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else HERE
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    sandbox, listen, driver = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as home:
        config = f"""
[state]
dir = "{home}/state"
[api]
socket = "{home}/batchd.sock"
listen = "127.0.0.1:{listen}"
token = {{ env = "TOKEN" }}
[polling]
min_interval = "500ms"
max_interval = "1s"
[providers.openai]
api_key = {{ env = "KEY" }}
base_url = "http://127.0.0.1:{sandbox}/v1"
[providers.anthropic]
api_key = {{ env = "KEY" }}
base_url = "http://127.0.0.1:{sandbox}"
[webhooks.ops]
url = "http://127.0.0.1:{receiver.server_port}/ops"
secret = {{ env = "SECRET" }}
retry = ["2s"]
[webhooks.pipeline]
url = "http://127.0.0.1:{receiver.server_port}/"
secret = {{ env = "SECRET" }}
"""
        file = pathlib.Path(home) / "config.toml"
        file.write_text(config)
        file.chmod(0o600)
        secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        env = {"PATH": os.environ["PATH"], "HOME": home, "BATCHD_CONFIG": f"{home}/config.toml", "USER": "ada"}
        env |= {"TOKEN": TOKEN, "KEY": "sk-for-the-sandbox", "SECRET": secret}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = [
            subprocess.Popen([batchd, "sandbox", "--listen", f"127.0.0.1:{sandbox}", "--speed", "600"], env=env, **quiet),
            subprocess.Popen(["chromedriver", f"--port={driver}"], **quiet),
        ]
        try:
            until("the sandbox answers", lambda: socket.create_connection(("127.0.0.1", sandbox)))
            running.append(subprocess.Popen([batchd, "run"], env=env, **quiet))
            until("the daemon answers", lambda: socket.create_connection(("127.0.0.1", listen)))
            ids = {}
            for name, provider, model, requests, takes in BATCHES:
                lines = pathlib.Path(home) / f"{name}.jsonl"
                body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}
                call = {"method": "POST", "url": "/v1/chat/completions", "body": body}
                lines.write_text("".join(json.dumps({"custom_id": f"r{n}", **call}) + "\n" for n in range(requests)))
                submit = [batchd, "submit", str(lines), "--provider", provider, "--name", name, "--label", "team=evals"]
                # Anthropic's batches have no metadata.
                submit += ["--metadata", f"sandbox_duration={takes}"] if provider == "openai" else []
                said = subprocess.run(submit, env=env, check=True, capture_output=True, text=True)
                ids[name] = said.stdout.split()[-1]
            browser = Browser(driver)
            home_page = f"http://127.0.0.1:{listen}"
            time.sleep(20)
            browser.go(home_page)
            browser.run(f"document.querySelector('#token').value='{TOKEN}';document.querySelector('form').submit()")
            until("somebody is signed in", lambda: browser.run("return !!document.querySelector('#batches')"))
            browser.picture(to / "dashboard.png", "light", 1200)
            browser.picture(to / "dashboard-phone.png", "light", 360)
            browser.go(f"{home_page}/b/openai:{ids['nightly-evals']}")
            browser.picture(to / "dashboard-batch.png", "dark", 1200)
            browser.ask("DELETE", browser.session)
        finally:
            for process in running:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
