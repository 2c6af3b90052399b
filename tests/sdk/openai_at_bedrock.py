"""OpenAI's own SDK, which knows nothing of AWS, at Bedrock through batchd.

    python openai_at_bedrock.py SOCKET create FILE    uploads and creates; prints the batch
    python openai_at_bedrock.py SOCKET cancel ID      cancels; prints the batch
    python openai_at_bedrock.py SOCKET read ID        prints the lines of the results
    python openai_at_bedrock.py SOCKET refused FILE   creates from what Bedrock cannot be given; prints the error
"""

import json
import sys

import httpx
import openai
from openai.types import Batch

socket, command, argument = sys.argv[1:]
sdk = openai.OpenAI(
    api_key="none",
    base_url="http://batchd/v1",
    max_retries=0,
    _strict_response_validation=True,
    http_client=httpx.Client(transport=httpx.HTTPTransport(uds=socket)),
)


def strict(response):
    return Batch.model_validate_json(response.text, strict=True)


def create(path):
    with open(path, "rb") as file:
        kept = sdk.files.create(file=file, purpose="batch")
    made = sdk.batches.with_raw_response.create(
        input_file_id=kept.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return strict(made).model_dump()


def cancel(id):
    return strict(sdk.batches.with_raw_response.cancel(id)).model_dump()


def read(id):
    batch = strict(sdk.batches.with_raw_response.retrieve(id))
    assert id in [each.id for each in sdk.batches.list()]
    # ministack counts nothing, so that nobody can say before whether a job that was stopped has results.
    file = batch.output_file_id or f"results:bedrock:{id}"
    return [json.loads(line) for line in sdk.files.content(file).text.splitlines()]


def refused(path):
    before = [file.id for file in sdk.files.list()]
    with open(path, "rb") as file:
        kept = sdk.files.create(file=file, purpose="batch")
    try:
        sdk.batches.create(input_file_id=kept.id, endpoint="/v1/chat/completions", completion_window="24h")
    except openai.BadRequestError as refusal:
        assert refusal.type == "invalid_request_error" and refusal.param == "input_file_id", refusal.body
        assert sdk.files.delete(kept.id).deleted
        assert [file.id for file in sdk.files.list()] == before
        return refusal.body["message"]
    raise AssertionError("it was created")


print(json.dumps({"create": create, "cancel": cancel, "read": read, "refused": refused}[command](argument)))
