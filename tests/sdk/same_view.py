"""Every vendor's own SDK and batchd look at the same batches of the sandbox, and must see the same, field by field.

Arguments: the sandbox's address and the batchd binary, whose daemon watches all four vendors there.
"""

import json
import os
import subprocess
import sys

import anthropic
import openai
from google import genai
from google.genai import types
from mistralai.client import Mistral
from openai.types import Batch
from openai.types.chat import ChatCompletion

SANDBOX, BATCHD = sys.argv[1:]
# A batch of each end, and one that lives for a while.
ENDINGS = ["succeeded", "partial", "all_failed", "failed", "expired", "cancelled"]
LONG = "duration-12h"
REQUESTS = 10
TIMES = {
    "completed": "completed_at",
    "failed": "failed_at",
    "expired": "expired_at",
    "cancelled": "cancelled_at",
    "cancelling": "cancelling_at",
}


def seconds(time):
    return time and int(time.timestamp())


class OpenAI:
    name = "openai"

    def __init__(self):
        self.client = openai.OpenAI(api_key="any", base_url=f"{SANDBOX}/v1")

    def create(self, wish):
        rows = [
            {
                "custom_id": f"row-{index}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "gpt-x", "messages": [{"role": "user", "content": "say"}]},
            }
            for index in range(REQUESTS)
        ]
        text = "\n".join(map(json.dumps, rows)).encode()
        file = self.client.files.create(file=("in.jsonl", text), purpose="batch")
        key = "sandbox_duration" if wish == LONG else "sandbox_outcome"
        return self.client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={key: wish.removeprefix("duration-"), "job": "same view"},
        ).id

    def see(self, id):
        return self.client.batches.retrieve(id).model_dump()

    def cancel(self, id):
        self.client.batches.cancel(id)

    def results(self, id):
        batch = self.client.batches.retrieve(id)
        files = [file for file in (batch.output_file_id, batch.error_file_id) if file]
        lines = [json.loads(line) for file in files for line in self.client.files.content(file).text.splitlines()]
        return {line["custom_id"]: text_of(line) for line in lines}


class Anthropic:
    name = "anthropic"

    def __init__(self):
        self.client = anthropic.Anthropic(api_key="any", base_url=SANDBOX)

    def create(self, wish):
        model = f"claude-{wish}" if wish == LONG else f"sandbox-{wish.replace('_', '-')}"
        message = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "say"}]}
        requests = [{"custom_id": f"row-{index}", "params": message} for index in range(REQUESTS)]
        return self.client.messages.batches.create(requests=requests).id

    def see(self, id):
        batch = self.client.messages.batches.retrieve(id)
        counts = batch.request_counts
        failed = counts.errored + counts.canceled + counts.expired
        status = {"in_progress": "in_progress", "canceling": "cancelling", "ended": "completed"}[
            batch.processing_status
        ]
        if status == "completed" and counts.canceled:
            status = "cancelled"
        elif status == "completed" and counts.expired:
            status = "expired"
        seen = {
            "status": status,
            "endpoint": "/v1/messages",
            "completion_window": "24h",
            "input_file_id": "",
            "request_counts": {
                "total": counts.processing + counts.succeeded + failed,
                "completed": counts.succeeded,
                "failed": failed,
            },
            "created_at": seconds(batch.created_at),
            "in_progress_at": seconds(batch.created_at),
            "expires_at": seconds(batch.expires_at),
            "cancelling_at": seconds(batch.cancel_initiated_at),
            "output_file_id": f"results:anthropic:{id}" if batch.results_url else None,
            "error_file_id": None,
            "errors": None,
        }
        return ended(seen, seconds(batch.ended_at))

    def cancel(self, id):
        self.client.messages.batches.cancel(id)

    def results(self, id):
        if not self.client.messages.batches.retrieve(id).results_url:
            return {}
        return {
            line.custom_id: line.result.message.content[0].text if line.result.type == "succeeded" else None
            for line in self.client.messages.batches.results(id)
        }


class Gemini:
    name = "gemini"

    def __init__(self):
        self.client = genai.Client(api_key="any", http_options={"base_url": SANDBOX, "api_version": "v1beta"})

    def create(self, wish):
        model = f"gemini-{wish}" if wish == LONG else f"sandbox-{wish.replace('_', '-')}"
        requests = [types.InlinedRequest(contents="say") for _ in range(REQUESTS)]
        return self.client.batches.create(model=model, src=requests, config={"display_name": wish}).name

    def see(self, id):
        job = self.client.batches.get(name=id)
        word = job.state.name.removeprefix("JOB_STATE_").lower()
        known = {"pending": "validating", "running": "in_progress", "succeeded": "completed"}
        model = job.model.removeprefix("models/")
        seen = {
            "status": known.get(word, word),
            "model": model,
            "endpoint": f"/v1beta/models/{model}:batchGenerateContent",
            "input_file_id": "",
            "created_at": seconds(job.create_time),
            "error_file_id": None,
        }
        if results := job.dest and job.dest.inlined_responses:
            # A request that its batch's cancellation overtook has not failed (1: google.rpc.Code.CANCELLED).
            codes = [result.error.code for result in results if result.error]
            seen["request_counts"] = {
                "total": REQUESTS,
                "completed": len(results) - len(codes),
                "failed": sum(1 for code in codes if code != 1),
            }
            seen["output_file_id"] = f"results:gemini:{id}"
        if job.error:
            seen["errors"] = job.error.message
        return ended(seen, seconds(job.end_time))

    def cancel(self, id):
        self.client.batches.cancel(name=id)

    def results(self, id):
        job = self.client.batches.get(name=id)
        results = job.dest and job.dest.inlined_responses or []
        # What came inline has no ids: the place is the id.
        return {
            str(place): result.response.candidates[0].content.parts[0].text if result.response else None
            for place, result in enumerate(results)
        }


class MistralAI:
    name = "mistral"

    def __init__(self):
        self.client = Mistral(api_key="any", server_url=SANDBOX)

    def create(self, wish):
        requests = [
            {"custom_id": f"row-{index}", "body": {"messages": [{"role": "user", "content": "say"}]}}
            for index in range(REQUESTS)
        ]
        return self.client.batch.jobs.create(
            endpoint="/v1/chat/completions",
            model=f"mistral-{wish}" if wish == LONG else "mistral-x",
            metadata={"job": "same view"} if wish == LONG else {"sandbox_outcome": wish},
            requests=requests,
        ).id

    def see(self, id):
        job = self.client.batch.jobs.get(job_id=id)
        known = {
            "QUEUED": "validating",
            "RUNNING": "in_progress",
            "SUCCESS": "completed",
            "FAILED": "failed",
            "TIMEOUT_EXCEEDED": "expired",
            "CANCELLATION_REQUESTED": "cancelling",
            "CANCELLED": "cancelled",
        }
        seen = {
            "status": known[job.status],
            "model": job.model,
            "endpoint": job.endpoint,
            "metadata": job.metadata,
            "input_file_id": job.input_files[0] if job.input_files else "",
            "output_file_id": job.output_file or None,
            "error_file_id": job.error_file or None,
            "request_counts": {
                "total": job.total_requests,
                "completed": job.succeeded_requests,
                "failed": job.failed_requests,
            },
            "created_at": job.created_at,
            "in_progress_at": job.started_at or None,
            "errors": "; ".join(map(told, job.errors)) or None,
        }
        return ended(seen, job.completed_at or None)

    def cancel(self, id):
        self.client.batch.jobs.cancel(job_id=id)

    def results(self, id):
        job = self.client.batch.jobs.get(job_id=id)
        files = [file for file in (job.output_file, job.error_file) if file]
        lines = []
        for file in files:
            content = self.client.files.download(file_id=file).read().decode()
            lines += [json.loads(line) for line in content.splitlines()]
        return {line["custom_id"]: text_of(line) for line in lines}


def text_of(line):
    """What a line of OpenAI's form says; `None` if the request did not succeed."""
    response = line["response"]
    if line["error"] or not response or response["status_code"] >= 400:
        return None
    return response["body"]["choices"][0]["message"]["content"]


def told(error):
    """Mistral tells each kind of error once, with how many requests had it."""
    return error.message if error.count in (None, 1) else f"{error.message} ({error.count} requests)"


def ended(seen, at):
    """Puts the time of the end where the status says."""
    if at and seen["status"] in ("completed", "failed", "expired", "cancelled"):
        seen[TIMES[seen["status"]]] = at
    return seen


def batchd(*arguments, codes=(0,)):
    ended = subprocess.run([BATCHD, *arguments], capture_output=True, text=True, env=os.environ)
    assert ended.returncode in codes, (arguments, ended.returncode, ended.stdout, ended.stderr)
    return ended.stdout


def compare(who, sdk, shown):
    """Whether all that the SDK sees is what batchd shows."""
    Batch.model_validate(shown, strict=True)
    assert shown["id"], shown
    for field, value in sdk.items():
        found = shown[field]
        if field == "errors" and isinstance(value, str):
            found = "; ".join(error["message"] for error in found["data"])
        assert found == value, f"{who}: {field} is {value!r} to the SDK and {found!r} to batchd\n{sdk}\n{shown}"
    if shown["status"] in TIMES:
        assert shown[TIMES[shown["status"]]], shown
    for status, field in TIMES.items():
        if status not in (shown["status"], "cancelling"):
            assert shown[field] is None, shown


def compare_live(vendor, id, status):
    """The same while it lives: between two looks of the SDK that agree, batchd must see what they saw."""
    for _ in range(100):
        before = vendor.see(id)
        shown = json.loads(batchd("get", f"{vendor.name}:{id}", "--json"))
        if vendor.see(id) == before and before["status"] == status:
            compare(f"{vendor.name} {status}", before, shown)
            return
    raise AssertionError(f"{vendor.name}: {id} does not hold still as {status}: {before}")


NOTHING_CAME = {"failed": (3,), "expired": (4,), "cancelled": (5,)}


def compare_results(vendor, wish, id):
    """Whether `batchd results` gives what the vendor's SDK reads, each request once."""
    sdk = vendor.results(id)
    name = f"{vendor.name}:{id}"
    # A batch that gave nothing says by its exit code how it ended.
    codes = (0, *NOTHING_CAME.get(wish, ()))
    lines = [json.loads(line) for line in batchd("results", name, codes=codes).splitlines()]
    failures = [json.loads(line) for line in batchd("results", name, "--errors", codes=codes).splitlines()]
    assert all(text_of(line) is None for line in failures), failures
    shown = {line["custom_id"]: text_of(line) for line in lines + failures}
    assert shown == sdk, f"{vendor.name} {wish}: {shown} to batchd and {sdk} to the SDK"
    assert len(lines) == len({line["custom_id"] for line in lines}), lines
    for line in lines:
        if text_of(line) is not None:
            ChatCompletion.model_validate(line["response"]["body"])
    print(f"{vendor.name}: {wish} has {len(shown)} results")


def main():
    vendors = [OpenAI(), Anthropic(), Gemini(), MistralAI()]
    long = {vendor.name: vendor.create(LONG) for vendor in vendors}
    batches = [(vendor, wish, vendor.create(wish)) for vendor in vendors for wish in ENDINGS]
    for vendor in vendors:
        ids = [id for other, _, id in batches if other is vendor]
        batchd("track", "--provider", vendor.name, "--label", "of=sdk", long[vendor.name], *ids)
        compare_live(vendor, long[vendor.name], "in_progress")
    # Among the ends there is one of each kind; the worst is told.
    batchd("wait", "--timeout", "25s", *(f"{vendor.name}:{id}" for vendor, _, id in batches), codes=(3,))

    entries = {entry["id"]: entry for entry in json.loads(batchd("list", "--all", "--json"))["data"]}
    for vendor, wish, id in batches:
        sdk, shown = vendor.see(id), json.loads(batchd("show", f"{vendor.name}:{id}", "--json"))
        compare(f"{vendor.name} {wish}", sdk, shown)
        entry = entries[id]
        Batch.model_validate(entry, strict=True)
        for field in ("transitions", "deliveries", "schedule"):
            del shown["batchd"][field]
        assert shown == entry, (shown, entry)
        print(f"{vendor.name}: {wish} is {shown['status']}, {shown['batchd']['outcome']}, {len(sdk)} fields agree")

    for vendor, wish, id in batches:
        compare_results(vendor, wish, id)

    for vendor in vendors:
        id = long[vendor.name]
        batchd("cancel", f"{vendor.name}:{id}")
        batchd("wait", "--timeout", "25s", f"{vendor.name}:{id}", codes=(5,))
        shown = json.loads(batchd("show", f"{vendor.name}:{id}", "--json"))
        compare(f"{vendor.name} cancelled by hand", vendor.see(id), shown)
    print(f"anthropic {anthropic.__version__}, google-genai {genai.__version__}, openai {openai.__version__}: ok")


main()
