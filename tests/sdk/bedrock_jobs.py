"""AWS's own SDK at ministack: makes jobs and objects, and tells what became of them.

    python bedrock_jobs.py ADDRESS create NAME        a job; prints its ARN
    python bedrock_jobs.py ADDRESS status ARN         prints its status
    python bedrock_jobs.py ADDRESS list               prints every job as the SDK reads it
    python bedrock_jobs.py ADDRESS put URI FILE       an object in S3
    python bedrock_jobs.py ADDRESS read URI           prints an object's text
    python bedrock_jobs.py ADDRESS bucket NAME        a bucket
"""

import json
import sys

import boto3

address, command, *arguments = sys.argv[1:]
bedrock = boto3.client("bedrock", endpoint_url=address)
s3 = boto3.client("s3", endpoint_url=address)


def place(uri):
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def create(name):
    job = bedrock.create_model_invocation_job(
        jobName=name,
        roleArn="arn:aws:iam::000000000000:role/batches",
        modelId="anthropic.claude-example-v1:0",
        inputDataConfig={"s3InputDataConfig": {"s3Uri": f"s3://batches/in/{name}.jsonl"}},
        outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://batches/out/"}},
    )
    return job["jobArn"]


def status(arn):
    return bedrock.get_model_invocation_job(jobIdentifier=arn)["status"]


def everything():
    return bedrock.list_model_invocation_jobs()["invocationJobSummaries"]


def put(uri, path):
    with open(path, "rb") as file:
        s3.put_object(Body=file, **place(uri))


def read(uri):
    return s3.get_object(**place(uri))["Body"].read().decode()


def bucket(name):
    s3.create_bucket(Bucket=name)


commands = {"create": create, "status": status, "list": everything, "put": put, "read": read, "bucket": bucket}
print(json.dumps(commands[command](*arguments), default=str))
