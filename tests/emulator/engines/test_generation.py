"""What all engines do alike: read the settings of a prediction, and run large work in a thread."""

import asyncio
import threading

import lmstudio_integrations as lms
from lmstudio_integrations.emulator.engines.generation import (
    Tags,
    reasoning_tags,
    run_in_thread,
    stop_strings,
)


def test_settings_choose_how_reasoning_is_separated() -> None:
    other = {"enabled": True, "startString": "[[", "endString": "]]"}
    assert reasoning_tags(lms.LlmPredictionConfig(reasoning_parsing=other)) == Tags("[[", "]]")
    assert reasoning_tags(lms.LlmPredictionConfig()) == Tags("<think>", "</think>")
    assert not reasoning_tags(lms.LlmPredictionConfig(reasoning_parsing={"enabled": False})).enabled
    assert not reasoning_tags(lms.LlmPredictionConfig(reasoning_parsing={"enabled": True, "startString": ""})).enabled


def test_all_stop_strings_count() -> None:
    config = lms.LlmPredictionConfig(
        stop_strings=["a"], tool_call_stop_strings=["b"], prompt_template={"type": "manual", "stopStrings": ["c"]}
    )
    assert stop_strings(config) == ["a", "b", "c"]
    malformed = lms.LlmPredictionConfig(prompt_template={"type": "manual", "stopStrings": ["", 7]})
    assert stop_strings(malformed) == ["7"]
    assert stop_strings(lms.LlmPredictionConfig(prompt_template={"type": "manual", "stopStrings": 7})) == []


def test_the_end_waits_for_no_large_work_and_what_has_not_begun_never_does() -> None:
    begun, released, late = threading.Semaphore(0), threading.Event(), threading.Event()

    def work() -> None:
        begun.release()
        released.wait()

    async def main() -> None:
        for _ in range(4):
            tasks.append(asyncio.ensure_future(run_in_thread(work, when=True)))
            await asyncio.to_thread(begun.acquire)
        tasks.append(asyncio.ensure_future(run_in_thread(late.set, when=True)))
        await asyncio.sleep(0)

    before, tasks = set(threading.enumerate()), list[asyncio.Future[None]]()
    asyncio.run(main())  # it cancels the tasks
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert not late.is_set()
