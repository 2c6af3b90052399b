"""What the vendors' own SDKs send, without any network: as JSON, by kind and operation, for batchd's to be compared.

Kinds whose SDK this Python does not have are left out.
"""

import importlib
import json
import sys

import httpx

IDS = json.loads(sys.argv[1])
KEY = "sk-a-key-that-nobody-may-see"


class Recorder:
    """A transport that answers everything with an empty object and keeps the last request."""

    def __init__(self, http=httpx):
        def answer(request):
            self.request = request
            return http.Response(200, json={"object": "list", "data": [], "batch": {}, "batches": []})

        self.client = http.Client(transport=http.MockTransport(answer))

    def told(self, operation):
        self.request = None
        try:
            operation()
        except Exception as trouble:  # what the SDK makes of an empty answer is its own business
            if self.request is None:
                raise trouble
        sent = self.request
        keys = sorted(name for name, value in sent.headers.items() if KEY in value)
        return {"method": sent.method, "url": str(sent.url), "keys": keys}


def operations(recorder, batches, name):
    batch = IDS[name]
    return {
        "retrieve": recorder.told(lambda: batches.retrieve(batch)),
        "list": recorder.told(lambda: batches.list()),
        "cancel": recorder.told(lambda: batches.cancel(batch)),
    }


def azure(version):
    openai = importlib.import_module("openai")
    # The newest releases have a client of their own below; the older ones are httpx itself.
    http = importlib.import_module(openai.DefaultHttpxClient.__mro__[-2].__module__.split(".")[0])
    recorder = Recorder(http)
    if version:
        client = openai.AzureOpenAI(
            azure_endpoint="https://resource.openai.azure.com",
            api_version=version,
            api_key=KEY,
            http_client=recorder.client,
        )
    else:
        client = openai.OpenAI(
            base_url="https://resource.openai.azure.com/openai/v1", api_key=KEY, http_client=recorder.client
        )
    return operations(recorder, client.batches, "azure-openai")


def stainless(module, factory, name):
    library = importlib.import_module(module)
    recorder = Recorder()
    client = getattr(library, factory)(api_key=KEY, http_client=recorder.client)
    return operations(recorder, client.batches, name)


def cohere():
    library = importlib.import_module("cohere")
    recorder = Recorder()
    client = library.ClientV2(api_key=KEY, httpx_client=recorder.client)
    return operations(recorder, client.batches, "cohere")


def zai():
    library = importlib.import_module("zai")
    recorder = Recorder()
    client = library.ZaiClient(api_key=KEY, http_client=recorder.client)
    return operations(recorder, client.batches, "zai")


told = {}
for kind, ask in {
    "azure-openai classic": lambda: azure("2024-10-21"),
    "azure-openai": lambda: azure(None),
    "groq": lambda: stainless("groq", "Groq", "groq"),
    "together": lambda: stainless("together", "Together", "together"),
    "cohere": cohere,
    "zai": zai,
}.items():
    try:
        told[kind] = ask()
    except ImportError as missing:
        print(f"{kind}: {missing}", file=sys.stderr)
print(json.dumps(told))
