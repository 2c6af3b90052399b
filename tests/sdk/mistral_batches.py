"""Mistral's own SDK against the sandbox: upload, create, get, list, cancel, results, delete, every ending."""

import asyncio
import json
import sys
import time
import urllib.request

import mistralai.client
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from mistralai.client.models import ChatCompletionRequest, ChatCompletionResponse
from mistralai.extra.batch.client import BatchClient, BatchInput, is_running

# (asked for, status, succeeded and failed of ten)
ENDINGS = [
    ("succeeded", "SUCCESS", (10, 0)),
    ("partial", "SUCCESS", None),
    ("all_failed", "SUCCESS", (0, 10)),
    ("failed", "FAILED", (0, 0)),
    ("expired", "TIMEOUT_EXCEEDED", (6, 0)),
    ("cancelled", "CANCELLED", (5, 0)),
]


def rows():
    return [
        {"custom_id": f"row-{index}", "body": {"messages": [{"role": "user", "content": f"say {index}"}]}}
        for index in range(10)
    ]


def wait(client, job):
    while is_running(job.status):
        time.sleep(0.02)
        job = client.batch.jobs.get(job_id=job.id)
    return job


def read(client, file_id):
    if not file_id:
        return []
    return [json.loads(line) for line in client.files.download(file_id=file_id).read().splitlines()]


def refused(call, code):
    try:
        call()
    except SDKError as error:
        assert error.status_code == code, error
    else:
        raise AssertionError(f"no {code}")


def main(address):
    client = Mistral(api_key="any", server_url=address)
    content = "\n".join(json.dumps(row) for row in rows()).encode()
    file = client.files.upload(file={"file_name": "in.jsonl", "content": content}, purpose="batch")
    assert file.size_bytes == len(content) and file.sample_type == "batch_request"
    assert client.files.retrieve(file_id=file.id).filename == "in.jsonl"
    url = client.files.get_signed_url(file_id=file.id).url
    assert urllib.request.urlopen(url).read() == content

    started = [
        (
            client.batch.jobs.create(
                endpoint="/v1/chat/completions",
                model="mistral-x",
                input_files=[file.id],
                metadata={"sandbox_outcome": word, "job": "sdk"},
            ),
            *rest,
        )
        for word, *rest in ENDINGS
    ]
    for job, status, counts in started:
        end = wait(client, job)
        found = (end.succeeded_requests, end.failed_requests)
        assert end.status == status, end
        assert found == counts if counts else min(found) > 0 and sum(found) == 10, end
        assert end.completed_requests == sum(found) and end.total_requests == 10
        assert end.completed_at >= end.created_at and end.metadata["job"] == "sdk"
        output, errors = read(client, end.output_file), read(client, end.error_file)
        assert (len(output), len(errors)) == found
        for line in output:
            answer = ChatCompletionResponse.model_validate(line["response"]["body"])
            assert answer.choices[0].message.content.startswith("Sandbox answer to: say ")
        assert bool(end.errors) == (status == "FAILED" or found[1] > 0), end.errors
        print(f"mistral: {status} {found}")

    inline = client.batch.jobs.create(endpoint="/v1/chat/completions", model="mistral-x", requests=rows())
    wait(client, inline)
    assert len(client.batch.jobs.get(job_id=inline.id, inline=True).outputs) == 10
    slow = client.batch.jobs.create(
        endpoint="/v1/chat/completions", model="mistral-duration-12h", requests=rows()
    )
    running = client.batch.jobs.list(status=["QUEUED", "RUNNING"])
    assert [job.id for job in running.data] == [slow.id] and running.total == 1
    assert client.batch.jobs.cancel(job_id=slow.id).status == "CANCELLATION_REQUESTED"
    assert wait(client, slow).status == "CANCELLED"
    listed = client.batch.jobs.list(page=1, page_size=3)
    assert len(listed.data) == 3 and listed.total == len(ENDINGS) + 2
    found = client.batch.jobs.list(metadata={"sandbox_outcome": "expired"})
    assert [job.status for job in found.data] == ["TIMEOUT_EXCEEDED"], found
    assert client.batch.jobs.delete(job_id=slow.id).deleted
    assert client.files.list(page_size=2).total > 2
    refused(lambda: client.batch.jobs.get(job_id=slow.id), 404)
    refused(lambda: client.files.retrieve(file_id="none"), 404)

    # Mistral's own helper: create, wait, read and tidy up.
    batches = BatchClient(client, endpoint="/v1/chat/completions", response_body_type=ChatCompletionResponse)
    asked = {
        f"row-{index}": ChatCompletionRequest(
            model="mistral-x", messages=[{"role": "user", "content": f"say {index}"}]
        )
        for index in range(3)
    }
    result = asyncio.run(
        batches.run(BatchInput.from_payload(asked), model="mistral-x", poll_interval_seconds=0.02, inline_threshold=1)
    )
    answers = result.ordered(list(asked))
    assert [answer.choices[0].message.content for answer in answers] == [
        f"Sandbox answer to: say {index}" for index in range(3)
    ]
    assert client.files.delete(file_id=file.id).deleted


main(sys.argv[1])
print(f"mistralai {mistralai.client.__version__}: ok")
