"""Verifies a delivery of batchd with OpenAI's SDK (pip install openai).

Usage: openai_sdk.py WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY
"""

import os
import sys

import openai

client = openai.OpenAI(api_key="unused", webhook_secret=os.environ["BATCHD_WEBHOOK_SECRET"])


def verified(headers, body: bytes):
    """The event, as the SDK's own type; raises openai.InvalidWebhookSignatureError."""
    return client.webhooks.unwrap(body, headers)


names = ["webhook-id", "webhook-timestamp", "webhook-signature"]
try:
    event = verified(dict(zip(names, sys.argv[1:4])), sys.stdin.buffer.read())
except openai.InvalidWebhookSignatureError as error:
    sys.exit(f"refused: {error}")
print(event.type, event.data.id)
