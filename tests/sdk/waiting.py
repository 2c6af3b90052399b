"""A submission that waits for quota, as OpenAI's own SDK sees it: waiting.py SOCKET FILE."""

import sys
import time

import httpx
import openai

socket, path = sys.argv[1:]
transport = httpx.HTTPTransport(uds=socket)
client = openai.OpenAI(
    base_url="http://batchd/v1",
    api_key="any",
    http_client=httpx.Client(transport=transport),
)


def create(wait):
    file = client.files.create(file=open(path, "rb"), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"provider": "openai"},
        extra_headers={"x-batchd-wait": "quota"} if wait else {},
    )


first = create(wait=False)
try:
    create(wait=False)
except openai.RateLimitError as error:
    assert "limit 3" in str(error) and "in use 2" in str(error), error
else:
    raise AssertionError("there is no room for a second one")

waiting = create(wait=True)
assert waiting.id.startswith("sub_") and waiting.status == "validating", waiting
assert waiting.batchd["waiting_for"]["limit"] == 3, waiting
assert waiting.id in [batch.id for batch in client.batches.list()]

deadline = time.time() + 60
while True:
    batch = client.batches.retrieve(waiting.id)
    if batch.status == "completed":
        break
    assert time.time() < deadline, batch
    time.sleep(0.5)
assert batch.id.startswith("batch_") and batch.batchd["submission"] == waiting.id, batch
lines = client.files.content(batch.output_file_id).text.strip().splitlines()
assert len(lines) == 2, lines

filler = create(wait=True)
last = create(wait=True)
if last.id.startswith("sub_") and last.status == "validating":
    ended = client.batches.cancel(last.id)
    assert ended.status in ("cancelled", "cancelling"), ended
