"""Anthropic's own SDK against the sandbox: create, retrieve, list, cancel, results, delete, every ending."""

import sys
import time

import anthropic
from anthropic.types.messages import MessageBatch

# (model, succeeded, errored, canceled, expired of ten)
ENDINGS = [
    ("claude-x", (10, 0, 0, 0)),
    ("claude-partial", None),
    ("claude-all-failed", (0, 10, 0, 0)),
    ("claude-failed", (0, 10, 0, 0)),
    ("claude-expired", (6, 0, 0, 4)),
    ("claude-expired-empty", (0, 0, 0, 10)),
    ("claude-cancelled", (5, 0, 5, 0)),
]


def create(client, model):
    return client.messages.batches.create(
        requests=[
            {
                "custom_id": f"row-{index}",
                "params": {
                    "model": model,
                    "max_tokens": 64,
                    "messages": [{"role": "user", "content": f"say {index}"}],
                },
            }
            for index in range(10)
        ]
    )


def wait(client, batch):
    while batch.processing_status != "ended":
        counts = batch.request_counts
        assert counts.processing == 10 and counts.succeeded == 0
        time.sleep(0.02)
        raw = client.messages.batches.with_raw_response.retrieve(batch.id)
        batch = MessageBatch.model_validate_json(raw.text(), strict=True)
    return batch


def main(address):
    client = anthropic.Anthropic(
        api_key="any", base_url=address, max_retries=0, _strict_response_validation=True
    )
    started = [(create(client, model), model, counts) for model, counts in ENDINGS]
    for batch, model, expected in started:
        end = wait(client, batch)
        counts = end.request_counts
        found = (counts.succeeded, counts.errored, counts.canceled, counts.expired)
        assert found == expected if expected else min(found[:2]) > 0 and sum(found[:2]) == 10, (model, end)
        assert end.ended_at > end.created_at and end.expires_at > end.created_at
        results = list(client.messages.batches.results(end.id))
        assert len({result.custom_id for result in results}) == 10
        kinds = [result.result.type for result in results]
        assert found == tuple(kinds.count(kind) for kind in ("succeeded", "errored", "canceled", "expired"))
        for result in results:
            if result.result.type == "succeeded":
                text = result.result.message.content[0].text
                assert text == f"Sandbox answer to: {result.custom_id.replace('row-', 'say ')}", text
            elif result.result.type == "errored":
                assert result.result.error.error.message
        print(f"anthropic: {model} {found}")

    slow = create(client, "claude-duration-12h")
    assert client.messages.batches.cancel(slow.id).processing_status == "canceling"
    assert wait(client, slow).request_counts.canceled > 0
    listed = [batch.id for batch in client.messages.batches.list(limit=3)]
    assert len(listed) == len(ENDINGS) + 1 and listed[0] == slow.id, listed
    newer = client.messages.batches.list(limit=3, before_id=listed[4])
    assert [batch.id for batch in newer.data] == listed[1:4]
    assert client.messages.batches.delete(slow.id).type == "message_batch_deleted"
    for call, error in [
        (lambda: client.messages.batches.retrieve(slow.id), anthropic.NotFoundError),
        (lambda: client.messages.batches.create(requests=[]), anthropic.BadRequestError),
        (lambda: client.messages.batches.cancel(listed[1]), anthropic.BadRequestError),
    ]:
        try:
            call()
            raise AssertionError(f"no {error.__name__}")
        except error as refused:
            assert refused.body["error"]["message"] and refused.request_id, refused


main(sys.argv[1])
print(f"anthropic {anthropic.__version__}: ok")
