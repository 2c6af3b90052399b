"""OpenAI's own SDK against the sandbox: upload, create, retrieve, list, cancel, results, every ending."""

import json
import sys
import time

import openai
from openai.types import Batch, FileObject
from openai.types.chat import ChatCompletion

TERMINAL = {"completed", "failed", "expired", "cancelled"}
# (asked for, status, completed and failed of ten)
ENDINGS = [
    ("succeeded", "completed", (10, 0)),
    ("partial", "completed", None),
    ("all_failed", "completed", (0, 10)),
    ("failed", "failed", (0, 0)),
    ("expired", "expired", (6, 0)),
    ("expired_empty", "expired", (0, 0)),
    ("cancelled", "cancelled", (5, 0)),
]


def lines(model):
    rows = []
    for index in range(10):
        body = {"model": model, "messages": [{"role": "user", "content": f"say {index}"}]}
        row = {"custom_id": f"row-{index}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        rows.append(json.dumps(row))
    return "\n".join(rows).encode()


def create(client, file, **metadata):
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata=metadata or None,
    )


def wait(client, batch):
    seen = [batch.status]
    while batch.status not in TERMINAL:
        time.sleep(0.02)
        raw = client.batches.with_raw_response.retrieve(batch.id)
        batch = Batch.model_validate_json(raw.text, strict=True)
        if batch.status != seen[-1]:
            seen.append(batch.status)
    order = ["validating", "in_progress", "finalizing", "cancelling", *TERMINAL]
    assert [order.index(status) for status in seen[:-1]] == sorted(order.index(s) for s in seen[:-1]), seen
    return batch


def read(client, file_id):
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def main(address):
    client = openai.OpenAI(
        api_key="any", base_url=f"{address}/v1", max_retries=0, _strict_response_validation=True
    )
    file = client.files.create(file=("in.jsonl", lines("gpt-x")), purpose="batch")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == lines("gpt-x")
    raw = client.files.with_raw_response.retrieve(file.id)
    FileObject.model_validate_json(raw.text, strict=True)

    started = [(create(client, file, sandbox_outcome=word, job="sdk"), *rest) for word, *rest in ENDINGS]
    for batch, status, counts in started:
        end = wait(client, batch)
        assert end.status == status, end
        found = (end.request_counts.completed, end.request_counts.failed)
        assert found == counts if counts else min(found) > 0 and sum(found) == 10, end
        assert end.metadata["job"] == "sdk" and end.input_file_id == file.id
        assert getattr(end, f"{status}_at") >= end.created_at
        output, errors = read(client, end.output_file_id), read(client, end.error_file_id)
        assert len(output) == found[0]
        for line in output:
            answer = ChatCompletion.model_validate(line["response"]["body"], strict=True)
            assert answer.choices[0].message.content.startswith("Sandbox answer to: say ")
        if status == "failed":
            assert end.errors.data[0].code and not errors
        else:
            assert len(output) + len(errors) == 10
            assert end.usage.total_tokens == sum(o["response"]["body"]["usage"]["total_tokens"] for o in output)
        codes = {line["error"]["code"] for line in errors if line["error"]}
        assert codes <= {f"batch_{status}"}, codes
        print(f"openai: {status} {found}, {len(output)} + {len(errors)} lines")

    # By the model's name, and by hand.
    named = client.files.create(file=("named.jsonl", lines("sandbox-all-failed")), purpose="batch")
    assert wait(client, create(client, named)).request_counts.failed == 10
    slow = create(client, file, sandbox_duration="12h")
    assert client.batches.cancel(slow.id).status == "cancelling"
    assert wait(client, slow).cancelled_at
    try:
        client.batches.cancel(slow.id)
        raise AssertionError("a cancelled batch was cancelled")
    except openai.ConflictError:
        pass

    everything = [batch.id for batch in client.batches.list(limit=3)]
    assert len(everything) == len(ENDINGS) + 2 == len(set(everything)), everything
    assert everything[0] == slow.id
    assert {f.id for f in client.files.list(purpose="batch")} == {file.id, named.id}
    assert client.files.delete(named.id).deleted
    for call, error in [
        (lambda: client.batches.retrieve("batch_none"), openai.NotFoundError),
        (lambda: client.files.retrieve(named.id), openai.NotFoundError),
        (lambda: client.batches.list(limit=1000), openai.BadRequestError),
        (lambda: create(client, file, sandbox_outcome="nonsense"), openai.BadRequestError),
    ]:
        try:
            call()
            raise AssertionError(f"no {error.__name__}")
        except error as refused:
            assert refused.body["message"] and refused.request_id, refused


main(sys.argv[1])
print(f"openai {openai.__version__}: ok")
