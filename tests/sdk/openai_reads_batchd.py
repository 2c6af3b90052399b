"""OpenAI's own SDK against batchd's TCP API: every provider's batches are OpenAI batches there.

Arguments: the API's address and the batchd binary, whose daemon watches batches of four providers, and the
API's token.
"""

import json
import os
import subprocess
import sys

import openai
from openai.types import Batch

API, BATCHD, TOKEN = sys.argv[1:]


def refused(call, error):
    try:
        call()
    except error as refusal:
        assert refusal.body["message"] and refusal.body["code"], refusal
    else:
        raise AssertionError(f"no {error.__name__}")


def main():
    client = openai.OpenAI(
        api_key=TOKEN, base_url=f"{API}/v1", max_retries=0, _strict_response_validation=True
    )
    shown = subprocess.run(
        [BATCHD, "list", "--all", "--json"], capture_output=True, text=True, env=os.environ, check=True
    )
    shown = json.loads(shown.stdout)["data"]
    ids = [entry["id"] for entry in shown]
    providers = {entry["batchd"]["provider"] for entry in shown}
    assert providers == {"openai", "anthropic", "gemini", "mistral"}, providers

    # All pages, whatever their size, are the list of the command line.
    for limit in (1, 3, len(ids) - 1, len(ids), 100):
        listed = [batch.id for batch in client.batches.list(limit=limit)]
        assert listed == ids, (limit, listed, ids)
    assert [batch.id for batch in client.batches.list()] == ids
    page = client.batches.list(limit=2, after=ids[2])
    assert [batch.id for batch in page.data] == ids[3:5] and page.has_more, page
    assert page.next_page_info().params == {"after": ids[4]}, page.next_page_info()
    page = client.batches.list(after=ids[-1])
    assert page.data == [] and not page.has_more, page

    for entry in shown:
        raw = client.batches.with_raw_response.retrieve(entry["id"])
        batch = Batch.model_validate_json(raw.text, strict=True)
        for field in Batch.model_fields:
            if hasattr(getattr(batch, field), "model_dump"):
                assert getattr(batch, field).model_dump() == entry[field], (field, batch, entry)
            else:
                assert getattr(batch, field) == entry[field], (field, batch, entry)
        assert client.batches.retrieve(entry["id"]).id == entry["id"]
        named = f"{entry['batchd']['provider']}:{entry['id']}"
        assert client.batches.retrieve(named).id == entry["id"], named

    # Every file that a batch names can be read, whatever stands for it at its provider.
    read = 0
    for entry in shown:
        for file in filter(None, (entry["output_file_id"], entry["error_file_id"])):
            lines = [json.loads(line) for line in client.files.content(file).text.splitlines()]
            assert lines and all("response" in line and "error" in line for line in lines), (entry, lines)
            read += 1
    assert read > 20, read

    # One provider's own batches, in the same shape.
    for name in sorted(providers):
        own = openai.OpenAI(api_key=TOKEN, base_url=f"{API}/providers/{name}/v1", max_retries=0)
        wanted = {entry["id"] for entry in shown if entry["batchd"]["provider"] == name}
        for limit in (3, 100):
            listed = [batch.id for batch in own.batches.list(limit=limit)]
            assert wanted <= set(listed) and len(listed) == len(set(listed)), (name, limit, listed, wanted)
        for id in wanted:
            batch = own.batches.retrieve(id)
            assert batch.status == client.batches.retrieve(id).status, batch
            if batch.output_file_id:
                assert own.files.content(batch.output_file_id).text, batch

    refused(lambda: client.batches.retrieve("batch_none"), openai.NotFoundError)
    refused(lambda: client.batches.list(after="batch_none"), openai.NotFoundError)
    # TCP asks for the token.
    stranger = openai.OpenAI(api_key="another", base_url=f"{API}/v1", max_retries=0)
    refused(lambda: stranger.batches.cancel(ids[0]), openai.AuthenticationError)
    print(f"openai {openai.__version__}: {len(ids)} batches of {len(providers)} providers: ok")


main()
