"""What the clouds' own SDKs send: each looks at a batch, lists, cancels and creates at ADDRESS, which only listens.

    python cloud_requests.py ADDRESS vertex|fireworks|bedrock|cohere
"""

import sys

address, kind = sys.argv[1:]


def vertex():
    from google import genai
    from google.genai import types
    from google.oauth2.credentials import Credentials

    client = genai.Client(
        vertexai=True,
        project="of-ours",
        location="of-ours",
        credentials=Credentials(token="t"),
        http_options=types.HttpOptions(base_url=address, api_version="v1"),
    )
    name = "projects/of-ours/locations/of-ours/batchPredictionJobs/4002"
    yield lambda: client.batches.get(name=name)
    yield lambda: list(client.batches.list(config={"page_size": 20}))
    yield lambda: client.batches.cancel(name=name)
    yield lambda: client.batches.create(
        model="gemini-example-flash",
        src="gs://bucket/in/bd-1.jsonl",
        config={"display_name": "nightly [bd-1]", "dest": "gs://bucket/out"},
    )


def fireworks():
    from fireworks import Fireworks

    client = Fireworks(api_key="k", account_id="of-ours", base_url=address, max_retries=0)
    yield lambda: client.batch_inference_jobs.get("job-1")
    yield lambda: list(client.batch_inference_jobs.list(page_size=20, order_by="created_time desc"))
    yield lambda: client.datasets.create(dataset={"userUploaded": {}, "exampleCount": "2"}, dataset_id="bd-1")
    yield lambda: client.datasets.upload("bd-1", file=("in.jsonl", b"{}\n"))
    yield lambda: client.datasets.get("bd-1")
    yield lambda: client.batch_inference_jobs.create(
        display_name="nightly [bd-1]", model="m", input_dataset_id="accounts/of-ours/datasets/bd-1"
    )
    yield lambda: client.datasets.get_download_endpoint("out-1")


def bedrock():
    import boto3

    client = boto3.client(
        "bedrock",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
    )
    arn = "arn:aws:bedrock:us-east-1:111122223333:model-invocation-job/ab12cd34ef56"
    yield lambda: client.get_model_invocation_job(jobIdentifier=arn)
    yield lambda: client.list_model_invocation_jobs(maxResults=20, sortBy="CreationTime", sortOrder="Descending")
    yield lambda: client.stop_model_invocation_job(jobIdentifier=arn)
    yield lambda: client.create_model_invocation_job(
        jobName="bd-1-nightly",
        roleArn="arn:aws:iam::111122223333:role/batches",
        modelId="m",
        clientRequestToken="bd-1",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": "s3://bucket/in/bd-1.jsonl", "s3InputFormat": "JSONL"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://bucket/out/"}},
        modelInvocationType="Converse",
        timeoutDurationInHours=24,
    )


def cohere():
    from cohere import ClientV2

    client = ClientV2(api_key="k", base_url=address)
    yield lambda: client.datasets.create(
        name="bd-1", type="batch-chat-v2-input", data=("bd-1.jsonl", b"{}\n"), keep_original_file=True
    )
    yield lambda: client.datasets.get("bd-1-x7")
    yield lambda: client.batches.create(request={"name": "nightly [bd-1]", "input_dataset_id": "bd-1-x7", "model": "m"})
    yield lambda: client.batches.retrieve("b-1")
    yield lambda: client.batches.cancel("b-1")


for call in {"vertex": vertex, "fireworks": fireworks, "bedrock": bedrock, "cohere": cohere}[kind]():
    try:
        call()
    except Exception as error:  # The answers are none; the requests are what is wanted.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
