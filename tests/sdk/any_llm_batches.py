"""any-llm creates, watches, lists and cancels batches at every provider through batchd, which it takes for OpenAI.

Arguments: the API's address, its token, and a file of requests for the model `m-1`. The second half is the example of
any-llm's own documentation, with nothing but the environment changed.
"""

import os
import sys
import time

from any_llm import create_batch, retrieve_batch
from any_llm.api import cancel_batch, list_batches, retrieve_batch_results

API, TOKEN, FILE = sys.argv[1:]
with open(FILE) as file:
    CONTENT = file.read()
COUNT = CONTENT.count("\n")
PROVIDERS = ("openai", "anthropic", "gemini", "mistral")
ENDED = ("completed", "failed", "expired", "cancelled")

for name in PROVIDERS:
    place = {"api_key": TOKEN, "api_base": f"{API}/providers/{name}/v1"}
    batch = create_batch("openai", input_file_path=FILE, endpoint="/v1/chat/completions", **place)
    while batch.status not in ENDED:
        time.sleep(0.05)
        batch = retrieve_batch("openai", batch.id, **place)
    assert batch.status == "completed" and batch.request_counts.completed == COUNT, batch
    assert batch.id in [each.id for each in list_batches("openai", **place)]
    results = retrieve_batch_results("openai", batch.id, **place).results
    assert len(results) == COUNT and all(each.result.choices for each in results), results
    other = create_batch("openai", input_file_path=FILE, endpoint="/v1/chat/completions", **place)
    assert cancel_batch("openai", other.id, **place).status in ("cancelling", "cancelled"), other

os.environ.update(OPENAI_BASE_URL=f"{API}/v1", OPENAI_API_KEY=TOKEN)
os.chdir(os.path.dirname(os.path.abspath(FILE)))
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.05))
for name in PROVIDERS:
    with open("requests.jsonl", "w") as file:
        file.write(CONTENT.replace('"m-1"', f'"{name}/m-1"'))

    batch = create_batch(
        provider="openai",
        input_file_path="requests.jsonl",
        endpoint="/v1/chat/completions",
    )
    print(f"Batch ID: {batch.id}")
    print(f"Status: {batch.status}")

    # Poll for completion
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(30)
        batch = retrieve_batch("openai", batch.id)
        print(f"Status: {batch.status}")
        if batch.request_counts:
            print(f"  Completed: {batch.request_counts.completed}/{batch.request_counts.total}")

    if batch.status == "completed":
        print(f"Output file: {batch.output_file_id}")

    assert batch.status == "completed" and batch.output_file_id and batch.model_extra["batchd"]["provider"] == name
