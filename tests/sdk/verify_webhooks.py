"""Other people's verifiers of Standard Webhooks against what the daemon sent.

Arguments: the secret and a file with the deliveries: a list of {"headers": {…}, "body": "…"}.
"""

import base64
import json
import sys

import openai
import standardwebhooks
from openai.types import webhooks

SECRET, FILE = sys.argv[1:]
ENDS = {
    "batch.completed": webhooks.BatchCompletedWebhookEvent,
    "batch.failed": webhooks.BatchFailedWebhookEvent,
    "batch.expired": webhooks.BatchExpiredWebhookEvent,
    "batch.cancelled": webhooks.BatchCancelledWebhookEvent,
}


def rejects(call, error):
    try:
        call()
    except error:
        return
    raise AssertionError("a forgery was accepted")


def main():
    client = openai.OpenAI(api_key="any", _strict_response_validation=True)
    standard = standardwebhooks.Webhook(SECRET)
    other = "whsec_" + base64.b64encode(b"another secret of some length").decode()
    with open(FILE, encoding="utf-8") as file:
        deliveries = json.load(file)
    seen = set()
    for delivery in deliveries:
        headers, body = delivery["headers"], delivery["body"]
        event = client.webhooks.unwrap(body, headers, secret=SECRET)
        assert type(event) is ENDS[event.type] and event.object == "event", event
        ENDS[event.type].model_validate_json(body, strict=True)
        told = standard.verify(body, headers)
        assert told["id"] == event.id == headers["webhook-id"] and told["data"]["id"] == event.data.id
        openai.types.Batch.model_validate(told["data"]["batch"], strict=True)
        seen.add(event.type)

        rejects(lambda: client.webhooks.unwrap(body + " ", headers, secret=SECRET), openai.InvalidWebhookSignatureError)
        rejects(lambda: client.webhooks.unwrap(body, headers, secret=other), openai.InvalidWebhookSignatureError)
        rejects(lambda: standard.verify(body + " ", headers), standardwebhooks.WebhookVerificationError)
        late = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
        rejects(lambda: standard.verify(body, late), standardwebhooks.WebhookVerificationError)
    assert seen == ENDS.keys(), seen
    print(f"openai {openai.__version__}, standardwebhooks: {len(deliveries)} deliveries verified")


main()
