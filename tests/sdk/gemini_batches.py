"""Google's own SDK against the sandbox: upload, create, get, list, cancel, results, delete, every ending."""

import io
import json
import sys
import time

from google import genai
from google.genai import errors, types

ENDINGS = [
    ("gemini-x", "JOB_STATE_SUCCEEDED", 10),
    ("gemini-partial", "JOB_STATE_SUCCEEDED", None),
    ("gemini-all-failed", "JOB_STATE_SUCCEEDED", 0),
    ("gemini-failed", "JOB_STATE_FAILED", 0),
    ("gemini-expired", "JOB_STATE_EXPIRED", 0),
    ("gemini-cancelled", "JOB_STATE_CANCELLED", 5),
]


def requests():
    return [
        types.InlinedRequest(
            contents=f"say {index}",
            metadata={"key": f"k{index}"},
            config=types.GenerateContentConfig(temperature=0.2),
        )
        for index in range(10)
    ]


def wait(client, job):
    seen = [job.state.name]
    while not job.done:
        time.sleep(0.02)
        job = client.batches.get(name=job.name)
        if job.state.name != seen[-1]:
            seen.append(job.state.name)
    assert seen[:-1] in ([], ["JOB_STATE_PENDING"], ["JOB_STATE_PENDING", "JOB_STATE_RUNNING"]), seen
    return job


def refused(call, code):
    try:
        call()
    except errors.ClientError as error:
        assert error.code == code and error.message and error.status, error
    else:
        raise AssertionError(f"no {code}")


def main(address, version):
    client = genai.Client(api_key="any", http_options={"base_url": address, "api_version": version})
    started = [
        (client.batches.create(model=model, src=requests(), config={"display_name": model}), model, *rest)
        for model, *rest in ENDINGS
    ]
    for job, model, state, succeeded in started:
        end = wait(client, job)
        assert end.state.name == state and end.display_name == model, end
        assert end.end_time > end.create_time and end.model == f"models/{model}"
        results = end.dest.inlined_responses if end.dest else []
        good = [result for result in results if result.response]
        assert len(good) == succeeded if succeeded is not None else 0 < len(good) < 10, (model, results)
        for index, result in enumerate(results):
            assert result.metadata == {"key": f"k{index}"}
            if result.response:
                assert result.response.text == f"Sandbox answer to: say {index}"
            else:
                assert result.error.code and result.error.message
        print(f"gemini {version}: {state} {len(good)} of {len(results)} results")

    rows = [{"key": f"k{i}", "request": {"contents": [{"parts": [{"text": f"say {i}"}]}]}} for i in range(10)]
    text = "\n".join(json.dumps(row) for row in rows).encode()
    # More than one chunk of the SDK's eight mebibytes.
    text += b" " * (9 << 20)
    config = types.UploadFileConfig(display_name="in.jsonl", mime_type="application/jsonl")
    file = client.files.upload(file=io.BytesIO(text), config=config)
    assert client.files.get(name=file.name).size_bytes == len(text) and file.state.name == "ACTIVE"
    job = wait(client, client.batches.create(model="gemini-x", src=file.name))
    content = client.files.download(file=job.dest.file_name)
    lines = [json.loads(line) for line in content.splitlines()]
    assert {line["key"] for line in lines} == {row["key"] for row in rows}
    for line in lines:
        answer = types.GenerateContentResponse.model_validate(line["response"])
        assert answer.text == f"Sandbox answer to: {line['key'].replace('k', 'say ')}"
    result = client.files.get(name=job.dest.file_name)
    assert result.source.name == "GENERATED" and result.size_bytes == len(content)
    assert file.name in {found.name for found in client.files.list(config={"page_size": 1})}

    contents = types.EmbedContentBatch(contents=["a", "b"], config={"output_dimensionality": 4})
    embedded = wait(
        client, client.batches.create_embeddings(model="embed-x", src={"inlined_requests": contents})
    )
    vectors = [one.response.embedding.values for one in embedded.dest.inlined_embed_content_responses]
    assert [len(vector) for vector in vectors] == [4, 4] and vectors[0] != vectors[1]

    slow = client.batches.create(model="gemini-duration-12h", src=requests())
    client.batches.cancel(name=slow.name)
    assert wait(client, slow).state.name == "JOB_STATE_CANCELLED"
    listed = [job.name for job in client.batches.list(config={"page_size": 2})]
    assert len(listed) == len(set(listed)) and slow.name in listed, listed
    client.batches.delete(name=slow.name)
    client.files.delete(name=file.name)
    refused(lambda: client.batches.get(name=slow.name), 404)
    refused(lambda: client.files.get(name=file.name), 403)
    refused(lambda: client.batches.create(model="gemini-x", src="files/none"), 403)


for version in ("v1", "v1beta"):
    main(sys.argv[1], version)
print(f"google-genai {genai.__version__}: ok")
