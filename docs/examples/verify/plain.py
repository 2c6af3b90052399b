"""Verifies a delivery of batchd with Python's standard library alone.

Usage: plain.py WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time

KEY = base64.b64decode(os.environ["BATCHD_WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE = 300  # seconds


def verified(headers, body: bytes) -> dict:
    """The event; raises ValueError."""
    event_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > TOLERANCE:
        raise ValueError("the timestamp is too old, or a clock is wrong")
    signed = f"{event_id}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    for item in headers["webhook-signature"].split():
        version, _, signature = item.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), expected.encode()):
            return json.loads(body)
    raise ValueError("no signature matches")


names = ["webhook-id", "webhook-timestamp", "webhook-signature"]
try:
    event = verified(dict(zip(names, sys.argv[1:4])), sys.stdin.buffer.read())
except ValueError as error:
    sys.exit(f"refused: {error}")
print(event["type"], event["data"]["id"])
