"""OpenAI's own SDK uploads, creates, watches, reads and cancels through batchd, at providers of four interfaces.

Arguments: the API's address, its token, and a file of requests for the model `m-1`.
"""

import json
import sys
import time

import openai
from openai.types import Batch, FileObject

API, TOKEN, FILE = sys.argv[1:]
PROVIDERS = ("openai", "anthropic", "gemini", "mistral")
with open(FILE, "rb") as file:
    CONTENT = file.read()
IDS = [json.loads(line)["custom_id"] for line in CONTENT.splitlines()]


def client(path="/v1", **more):
    return openai.OpenAI(api_key=TOKEN, base_url=f"{API}{path}", _strict_response_validation=True, **more)


def refused(call, error, code=None, param=None):
    try:
        call()
    except error as refusal:
        assert refusal.body["message"], refusal
        assert code is None or refusal.body["code"] == code, refusal
        assert param is None or refusal.body["param"] == param, refusal
        return refusal
    raise AssertionError(f"no {error.__name__}")


def create(sdk, file, **more):
    return sdk.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def strict(model, response):
    return model.model_validate_json(response.text, strict=True)


def ended(sdk, batch):
    for _ in range(600):
        batch = sdk.batches.retrieve(batch.id)
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        time.sleep(0.05)
    raise AssertionError(f"{batch} does not end")


def results(sdk, batch):
    lines = [json.loads(line) for line in sdk.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(line["custom_id"] for line in lines) == sorted(IDS), lines
    assert all(line["response"]["status_code"] == 200 for line in lines), lines
    file = strict(FileObject, sdk.files.with_raw_response.retrieve(batch.output_file_id))
    assert file.id == batch.output_file_id and file.purpose == "batch_output", file


def main():
    sdk = client(max_retries=0)
    with open(FILE, "rb") as file:
        kept = strict(FileObject, sdk.files.with_raw_response.create(file=file, purpose="batch"))
    assert kept.bytes == len(CONTENT) and kept.purpose == "batch" and kept.status == "processed", kept
    assert sdk.files.content(kept.id).content == CONTENT
    expiring = sdk.files.create(
        file=("a.jsonl", CONTENT), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert expiring.expires_at == expiring.created_at + 3600, expiring
    assert [each.id for each in sdk.files.list(limit=1)] == [expiring.id, kept.id]
    assert sdk.files.delete(expiring.id).deleted
    refused(lambda: sdk.files.retrieve(expiring.id), openai.NotFoundError, "file_not_found", "id")

    created = {}
    for name in PROVIDERS:
        # Each way to say which provider is meant.
        prefixed = sdk.files.create(
            file=("p.jsonl", CONTENT.replace(b'"m-1"', f'"{name}/m-1"'.encode())), purpose="batch"
        )
        ways = [
            create(sdk, kept, metadata={"job": "n1"}, extra_body={"provider": name}),
            create(sdk, kept, extra_headers={"x-batchd-provider": name}),
            create(sdk, prefixed),
        ]
        for batch in ways:
            raw = sdk.batches.with_raw_response.retrieve(batch.id)
            assert strict(Batch, raw).id == batch.id
            assert json.loads(raw.text)["batchd"]["provider"] == name, raw.text
            assert batch.model == "m-1" or name == "openai", batch
        assert [batch.input_file_id for batch in ways] == [kept.id, kept.id, prefixed.id], ways
        assert ways[0].metadata["job"] == "n1", ways[0]
        created[name] = ways

        # Below the provider's own path, whatever it keeps files in.
        own = client(f"/providers/{name}/v1", max_retries=0)
        file = own.files.create(file=("own.jsonl", CONTENT), purpose="batch")
        batch = create(own, file)
        assert own.batches.retrieve(batch.id).id == batch.id
        assert batch.id in [each.id for each in own.batches.list()], batch
        assert own.files.retrieve(file.id).filename == "own.jsonl"
        created[name].append(batch)
        cancelled = create(sdk, kept, extra_body={"provider": name})
        try:
            assert sdk.batches.cancel(cancelled.id).status in ("cancelling", "cancelled", "completed")
        except openai.ConflictError as refusal:
            assert refusal.body["code"] == "already_ended", refusal

    listed = {batch.id for batch in sdk.batches.list()}
    for name, batches in created.items():
        for batch in batches:
            assert batch.id in listed
            batch = ended(sdk, batch)
            assert batch.status == "completed", (name, batch)
            assert batch.request_counts.completed == len(IDS), (name, batch)
            results(sdk, batch)
    output = ended(sdk, created["openai"][0]).output_file_id
    refused(lambda: sdk.files.delete(output), openai.PermissionDeniedError, "forbidden")

    # Faults are told, and nothing is created.
    count = len(list(sdk.batches.list()))
    refusal = refused(lambda: create(sdk, kept), openai.BadRequestError, param="provider")
    assert all(name in str(refusal) for name in PROVIDERS), refusal
    broken = sdk.files.create(file=("b.jsonl", b"nonsense\n" + CONTENT + b"[]\n"), purpose="batch")
    for name in PROVIDERS:
        refusal = refused(
            lambda: create(sdk, broken, extra_body={"provider": name}),
            openai.BadRequestError,
            "invalid_input",
            "input_file_id",
        )
        assert "line 1 is not JSON" in str(refusal), refusal
        assert [fault["line"] for fault in refusal.body["errors"]] == [1, len(IDS) + 2], refusal.body
    refused(
        lambda: create(sdk, expiring, extra_body={"provider": "openai"}), openai.NotFoundError, "file_not_found"
    )
    refused(
        lambda: sdk.files.create(file=("a", b"x"), purpose="vision"), openai.BadRequestError, param="purpose"
    )
    assert len(list(sdk.batches.list())) == count

    # Asked for again, it is the same batch.
    key = {"Idempotency-Key": "night-1", "x-batchd-provider": "anthropic"}
    first, second = (create(sdk, kept, extra_headers=key) for _ in range(2))
    assert first.id == second.id
    other = {**key, "x-batchd-provider": "gemini"}
    refused(lambda: create(sdk, kept, extra_headers=other), openai.ConflictError, "idempotency_key_reused")
    again = {"x-batchd-provider": "anthropic", "x-stainless-retry-count": "1"}
    anew = create(sdk, kept, extra_headers={"x-batchd-provider": "anthropic"})
    assert anew.id != first.id and create(sdk, kept, extra_headers=again).id == anew.id
    print(f"openai {openai.__version__}: {sum(map(len, created.values()))} batches at {len(PROVIDERS)} providers: ok")


main()
