"""batchd submits one file to all four vendors of the sandbox; each vendor's own SDK must see the batch as it was meant.

Arguments: the sandbox's address, the batchd binary, and a file of requests in OpenAI's form.
"""

import json
import subprocess
import sys

import anthropic
import openai
from google import genai
from google.genai import types
from mistralai.client import Mistral

SANDBOX, BATCHD, FILE = sys.argv[1:]
with open(FILE, "rb") as file:
    CONTENT = file.read()
REQUESTS = CONTENT.count(b"\n")


def submit(provider, *more):
    command = [BATCHD, "submit", FILE, "--provider", provider, "--metadata", "job=n1", "--name", "nightly", *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


client = openai.OpenAI(api_key="any", base_url=f"{SANDBOX}/v1")
batch = client.batches.retrieve(submit("openai"))
assert batch.metadata["job"] == "n1" and batch.metadata["batchd_id"].startswith("bd-"), batch
assert batch.endpoint == "/v1/chat/completions", batch
assert client.files.content(batch.input_file_id).content == CONTENT
assert client.files.retrieve(batch.input_file_id).filename == "in.jsonl"
assert [each.id for each in client.batches.list()] == [batch.id]

client = anthropic.Anthropic(api_key="any", base_url=SANDBOX)
id = submit("anthropic")
batch = client.messages.batches.retrieve(id)
counts = batch.request_counts
total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
assert total == REQUESTS, batch
assert [each.id for each in client.messages.batches.list()] == [id]

client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=SANDBOX, api_version="v1beta"))
job = client.batches.get(name=submit("gemini"))
assert job.display_name.startswith("nightly [bd-"), job
assert job.model.removeprefix("models/") == "m-1", job
assert [each.name for each in client.batches.list()] == [job.name]

client = Mistral(api_key="any", server_url=SANDBOX)
job = client.batch.jobs.get(job_id=submit("mistral", "--completion-window", "48h"))
assert job.metadata["job"] == "n1" and job.metadata["batchd_id"].startswith("bd-"), job
assert job.model == "m-1" and job.total_requests == REQUESTS, job
assert [each.id for each in client.batch.jobs.list().data] == [job.id]

print(json.dumps({"submitted": 4, "requests": REQUESTS}))
