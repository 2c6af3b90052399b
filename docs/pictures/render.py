"""Draws the pictures of the documentation from what batchd itself says.

Usage, from the source directory: python3 docs/pictures/render.py target/release/batchd

demo.svg is the terminal's output of `batchd demo`, slack.svg the message in Slack's snapshot. Needs no packages. With
--theme light or dark the pictures do not follow the reader's theme, which helps to look at both.
"""

import argparse
import html
import json
import os
import pathlib
import pty
import re
import sys
import unicodedata

HERE = pathlib.Path(__file__).parent
SNAPSHOT = HERE / "../../src/webhook/tests/snapshots/batchd__webhook__tests__conformance__slack.snap"

MONO = "ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace"
SANS = "-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif"

# A class of a picture, its property, its value in light and in dark.
Theme = list[tuple[str, str, str, str]]


def style(theme: Theme, forced: str | None) -> str:
    def rules(column: int) -> str:
        return "".join(f".{row[0]}{{{row[1]}:{row[column]}}}" for row in theme)

    if forced:
        return f"<style>{rules(2 if forced == 'light' else 3)}</style>"
    return f"<style>{rules(2)}@media (prefers-color-scheme:dark){{{rules(3)}}}</style>"


# The terminal.

CHAR, LINE, SIZE, MARGIN, BAR = 7.6, 19, 12.6, 18, 34
TERMINAL: Theme = [
    ("frame", "stroke", "#d0d7de", "#3d444d"),
    ("back", "fill", "#ffffff", "#0d1117"),
    ("bar", "fill", "#f3f4f6", "#151b23"),
    ("title", "fill", "#59636e", "#9198a1"),
    ("plain", "fill", "#1f2328", "#e6edf3"),
    ("dim", "fill", "#818b98", "#6e7681"),
    ("bold", "fill", "#1f2328", "#f0f6fc"),
    ("green", "fill", "#1a7f37", "#3fb950"),
    ("yellow", "fill", "#9a6700", "#d29922"),
    ("red", "fill", "#cf222e", "#f85149"),
]
# What a batch was when it was first seen says little.
FIRST_SIGHT = re.compile(r" status .* (validating|in_progress)\s*$")


def run(command: list[str], columns: int) -> list[str]:
    """The lines that a command writes to a terminal."""
    os.environ["COLUMNS"] = str(columns)
    output = bytearray()

    def read(fd: int) -> bytes:
        data = os.read(fd, 65536)
        output.extend(data)
        return b"\n" if data else data

    pty.spawn(command, read)
    return output.decode().replace("\r", "").splitlines()


def runs(line: str) -> list[tuple[str, str]]:
    """The pieces of a line, each with its class."""
    codes = {"2": "dim", "1": "bold", "32": "green", "33": "yellow", "31": "red"}
    pieces, kind = [], "plain"
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            named = [codes[code] for code in part[2:-1].split(";") if code in codes]
            kind = named[-1] if named else "plain"
        elif part:
            pieces.append((kind, part))
    return pieces


def terminal(title: str, prompt: str, lines: list[str], forced: str | None) -> str:
    lines = [f"\x1b[2m$\x1b[0m \x1b[1m{prompt}\x1b[0m", *lines]
    plain = ["".join(text for _, text in runs(line)) for line in lines]
    width = round(max(map(len, plain)) * CHAR + 2 * MARGIN)
    height = BAR + len(lines) * LINE + 2 * MARGIN - 6
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="{MONO}" font-size="{SIZE}">',
        f"<title>{html.escape(title)}</title>",
        style(TERMINAL, forced),
        f'<rect class="back frame" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="9"/>',
        f'<path class="bar" d="M1 {BAR}V9.5A8.5 8.5 0 0 1 9.5 1H{width - 9.5}A8.5 8.5 0 0 1 {width - 1} 9.5V{BAR}z"/>',
    ]
    for number, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"]):
        out.append(f'<circle cx="{20 + number * 19}" cy="{BAR / 2}" r="5.5" fill="{colour}"/>')
    out.append(f'<text class="title" x="{width / 2}" y="{BAR / 2 + 4.5}" text-anchor="middle">{html.escape(title)}</text>')
    for row, line in enumerate(lines):
        y, column = BAR + MARGIN + row * LINE + 8, 0
        for kind, text in runs(line):
            column += len(text)
            # Each word has its place, whatever the reader's font is.
            for word in re.finditer(r"\S+( \S+)*", text):
                x = MARGIN + (column - len(text) + word.start()) * CHAR
                length = round(len(word.group()) * CHAR, 1)
                weight = ' font-weight="600"' if kind in ("bold", "red") else ""
                out.append(
                    f'<text class="{kind}" x="{x:.1f}" y="{y}" textLength="{length}"{weight} xml:space="preserve">'
                    f"{html.escape(word.group())}</text>"
                )
    return "\n".join([*out, "</svg>"]) + "\n"


# The message in Slack.

SLACK: Theme = [
    ("frame", "stroke", "#dddddd", "#35373b"),
    ("back", "fill", "#ffffff", "#1a1d21"),
    ("strong", "fill", "#1d1c1d", "#f8f8f8"),
    ("plain", "fill", "#1d1c1d", "#d1d2d3"),
    ("dim", "fill", "#616061", "#ababad"),
    ("badge", "fill", "#e8e8e8", "#35373b"),
    ("link", "fill", "#1264a3", "#1d9bd1"),
    ("code", "fill", "#c01343", "#e8912d"),
    ("codebox", "fill", "#f4f4f4", "#222529"),
]
WARNING = (
    '<g transform="translate({x} {y})"><path d="M8 .8 15.6 14.6H.4z" fill="#ffcc4d" stroke="#ffcc4d" '
    'stroke-width=".8" stroke-linejoin="round"/><path d="M8 5v5" stroke="#231f20" stroke-width="1.8" '
    'stroke-linecap="round"/><circle cx="8" cy="12.3" r="1.1" fill="#231f20"/></g>'
)


def text(kind: str, x: float, y: float, words: str, size: float = 14, weight: int = 400) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" font-size="{size}" font-weight="{weight}">{html.escape(words)}</text>'


def mrkdwn(words: str) -> str:
    """A text of Slack without its markup: links and times by their words."""
    words = re.sub(r"<[^|>]+\|([^>]+)>", r"\1", words)
    return html.unescape(words)


def slack(forced: str | None) -> str:
    message = json.loads(SNAPSHOT.read_text().split("---\n", 2)[2])["partial"]
    attachment = message["attachments"][0]
    left, y, width = 78, 62, 660
    body = []
    for block in attachment["blocks"]:
        if block["type"] == "header":
            words = block["text"]["text"]
            x = left
            if unicodedata.name(words[0]) == "WARNING SIGN":
                body.append(WARNING.format(x=left, y=y + 3))
                words, x = words.lstrip(words[0] + "\ufe0f "), left + 24
            body.append(text("strong", x, y + 17, words, 17, 700))
            y += 34
        for number, field in enumerate(block.get("fields", [])):
            name, value = mrkdwn(field["text"]).split("\n", 1)
            x = left + (number % 2) * 290
            if number % 2 == 0 and number:
                y += 46
            body.append(text("strong", x, y + 14, name.strip("*"), 14, 700))
            if value.startswith("`"):
                value = value.strip("`")
                box = len(value) * 7.25 + 8
                body.append(f'<rect class="codebox frame" x="{x}" y="{y + 20}" width="{box:.0f}" height="18" rx="3"/>')
                body.append(
                    f'<text class="code" x="{x + 4}" y="{y + 33.5}" font-size="12" font-family="{MONO}" '
                    f'textLength="{len(value) * 7.25:.0f}">{html.escape(value)}</text>'
                )
            else:
                body.append(text("plain", x, y + 34, value))
        y += 52 if "fields" in block else 0
        for element in block.get("elements", []):
            said = mrkdwn(element["text"])
            linked = re.search(r"<[^!|>]+\|([^>]+)>", element["text"])
            if linked:
                name = linked.group(1)
                rest = html.escape(said.removeprefix(name))
                body.append(
                    f'<text class="dim" x="{left}" y="{y + 12}" font-size="12.5"><tspan class="link">'
                    f"{html.escape(name)}</tspan>{rest}</text>"
                )
            else:
                body.append(text("dim", left, y + 12, said, 12.5))
            y += 20
    height = y + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="{SANS}">',
        f"<title>A message of batchd in Slack: {html.escape(message['text'])}</title>",
        style(SLACK, forced),
        f'<rect class="back frame" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="9"/>',
        '<rect x="16" y="16" width="36" height="36" rx="8" fill="#2f6f4f"/>',
        '<path d="M26 24v20M26 39a5.5 5.5 0 1 0 0-3" fill="none" stroke="#fff" stroke-width="3.2" stroke-linecap="round"/>',
        '<text class="strong" x="62" y="31" font-size="15" font-weight="700" textLength="54">batchd</text>',
        '<rect class="badge" x="122" y="19" width="31" height="16" rx="3"/>',
        '<text class="dim" x="126" y="31" font-size="10" font-weight="700" textLength="23">APP</text>',
        text("dim", 161, 31, "8:53 AM", 12),
        f'<rect x="62" y="62" width="4" height="{height - 62 - 14}" rx="2" fill="{attachment["color"]}"/>',
        *body,
    ]
    return "\n".join([*out, "</svg>"]) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("batchd", help="the program")
    arguments.add_argument("--theme", choices=["light", "dark"])
    arguments.add_argument("--to", type=pathlib.Path, default=HERE)
    given = arguments.parse_args()
    (given.to / "slack.svg").write_text(slack(given.theme))
    lines = run([given.batchd, "demo"], 110)
    lines = [line for line in lines if line.strip() and not FIRST_SIGHT.search(re.sub(r"\x1b\[[0-9;]*m", "", line))]
    (given.to / "demo.svg").write_text(terminal("batchd demo", "batchd demo", lines, given.theme))
    sys.stdout.write(f"drawn in {given.to}\n")


main()
