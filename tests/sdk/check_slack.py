"""Slack's documented limits and markup against what the daemon posted; knows nothing of how it was made.

Argument: a file with the bodies, a list of {"body": "…", "tells": […]}: a message must show every text that it tells.
<https://docs.slack.dev/reference/block-kit>, <https://docs.slack.dev/messaging/formatting-message-text>
"""

import json
import re
import sys

# What may stand between < and >: a link or a date. Mentions of users, channels and groups may not.
ANGLES = re.compile(r"<(https?://[^<>|\s]+(\|[^<>|]*)?|!date\^\d+\^[^<>^|]*(\^https?://[^<>|]+)?\|[^<>|]+)>")
ENTITY = re.compile(r"&(amp|lt|gt);")


def units(text):
    return len(text.encode("utf-16-le")) // 2


def text_object(value, kinds, most):
    assert set(value) <= {"type", "text", "emoji", "verbatim"}, value
    assert value["type"] in kinds, value
    assert ("emoji" in value) <= (value["type"] == "plain_text"), value
    assert ("verbatim" in value) <= (value["type"] == "mrkdwn"), value
    assert 1 <= units(value["text"]) <= most, (units(value["text"]), most, value)
    assert value["text"].strip(), value
    markup(value["text"], value["type"] == "mrkdwn")


def markup(text, is_mrkdwn):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text), text
    assert not re.search("&(?!amp;|lt;|gt;)", text), text
    bare = ANGLES.sub("", text) if is_mrkdwn else text
    assert "<" not in bare and ">" not in bare, text


def block(value):
    kind, keys = value["type"], set(value) - {"type", "block_id"}
    if kind == "header":
        assert keys == {"text"}, value
        text_object(value["text"], {"plain_text"}, 150)
    elif kind == "section":
        assert keys and keys <= {"text", "fields", "expand"}, value
        if "text" in value:
            text_object(value["text"], {"plain_text", "mrkdwn"}, 3000)
        if "fields" in value:
            assert 1 <= len(value["fields"]) <= 10, value
            for field in value["fields"]:
                text_object(field, {"plain_text", "mrkdwn"}, 2000)
    elif kind == "context":
        assert keys == {"elements"} and 1 <= len(value["elements"]) <= 10, value
        for element in value["elements"]:
            text_object(element, {"plain_text", "mrkdwn"}, 2000)
    else:
        raise AssertionError(f"not a block that a notice needs: {value}")


def message(value):
    assert set(value) <= {"text", "blocks", "attachments", "unfurl_links", "unfurl_media"}, value
    assert 1 <= units(value["text"]) <= 4000, value["text"]
    markup(value["text"], True)
    for key in ("unfurl_links", "unfurl_media"):
        assert value.get(key) is False, value
    attachments = value.get("attachments", [])
    assert len(attachments) <= 20, len(attachments)
    for attachment in attachments:
        assert set(attachment) <= {"color", "blocks", "fallback"}, attachment
        assert re.fullmatch("#[0-9A-Fa-f]{6}", attachment["color"]), attachment
    for blocks in [value.get("blocks", []), *(attachment["blocks"] for attachment in attachments)]:
        assert len(blocks) <= 50, len(blocks)
        for one in blocks:
            block(one)


def shown(value):
    """Every text in it, as a reader sees it."""
    if isinstance(value, dict):
        return "\n".join(map(shown, value.values()))
    if isinstance(value, list):
        return "\n".join(map(shown, value))
    if isinstance(value, str):
        return ENTITY.sub(lambda found: {"amp": "&", "lt": "<", "gt": ">"}[found[1]], value)
    return ""


with open(sys.argv[1], encoding="utf-8") as file:
    posts = json.load(file)
for post in posts:
    assert len(post["body"].encode()) < 16 * 1024, len(post["body"])
    payload = json.loads(post["body"])
    message(payload)
    text = shown(payload)
    for told in post["tells"]:
        assert told in text, (told, text)
print(f"{len(posts)} messages are within Slack's limits")
