"""Verifies a delivery of batchd with the reference library (pip install standardwebhooks).

Usage: standard_webhooks.py WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY
"""

import os
import sys

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["BATCHD_WEBHOOK_SECRET"])


def verified(headers, body: bytes) -> dict:
    """The event; raises WebhookVerificationError."""
    return webhook.verify(body, headers)


names = ["webhook-id", "webhook-timestamp", "webhook-signature"]
try:
    event = verified(dict(zip(names, sys.argv[1:4])), sys.stdin.buffer.read())
except WebhookVerificationError as error:
    sys.exit(f"refused: {error}")
print(event["type"], event["data"]["id"])
