#!/usr/bin/env python3
"""Jobs in an asyncio program: futures are wrapped and awaited, and the loop stays free for other work."""

import asyncio
from pathlib import Path

from qcg.pilotjob.executor_api import QCGPJExecutor, ScriptTemplate


async def count(executor: QCGPJExecutor, name: str, number: int) -> int:
    """Write lines in one job and count them in another, which the manager starts after the first."""
    write = executor.submit(ScriptTemplate, name=f"write_{name}", script=f"seq {number}", stdout=f"{name}.txt")
    lines = executor.submit(
        ScriptTemplate, name=f"count_{name}", script=f"wc -l < {name}.txt", stdout=f"{name}.lines", after=[write]
    )
    await asyncio.wrap_future(lines)
    lines.raise_for_status()
    return int(await asyncio.to_thread(Path(f"{name}.lines").read_text))


async def beat(done: asyncio.Event) -> int:
    """Count how often the loop comes round while jobs run."""
    beats = 0
    while not done.is_set():
        await asyncio.sleep(0.01)
        beats += 1
    return beats


async def main(executor: QCGPJExecutor) -> None:
    done = asyncio.Event()
    heart = asyncio.create_task(beat(done))
    counts = await asyncio.gather(count(executor, "a", 10), count(executor, "b", 200), count(executor, "c", 3000))
    done.set()
    print(f"lines: {counts}")
    print(f"the loop was free: {await heart > 1}")


if __name__ == "__main__":
    with QCGPJExecutor() as executor:  # outside the loop: opening and closing wait for the manager
        asyncio.run(main(executor))
