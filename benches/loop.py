"""One round of looks at many batches, as a plain asyncio loop has it: prints processor seconds, seconds, MiB."""

import asyncio
import resource
import sys
import time

from openai import AsyncOpenAI

AT_ONCE = 16


async def main(base_url: str, key: str, count: int) -> None:
    client = AsyncOpenAI(base_url=base_url, api_key=key)
    slots = asyncio.Semaphore(AT_ONCE)

    async def look(number: int) -> str:
        async with slots:
            return (await client.batches.retrieve(f"batch_{number:032x}")).status

    # What is loaded at the first call is not the round's.
    await look(0)
    used, begun = processor(), time.monotonic()
    await asyncio.gather(*(look(number) for number in range(count)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(processor() - used, time.monotonic() - begun, memory)


def processor() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
