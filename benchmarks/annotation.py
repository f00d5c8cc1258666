"""Many people at the annotation page at once: `python benchmarks/annotation.py [SECONDS] [PEOPLE]`.

Every person chooses without a pause. Printed are the answers by status, choices a second, how long
an answer takes, and whether the store holds every choice that was answered with 200, once.
"""

import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import httpx
import numpy as np
import uvicorn

from aligncap.preference.store import Candidate, Clip, ClipCandidates, PreferenceStore, Provenance
from aligncap.service.annotate import (
    TOKEN_HEADER,
    AnnotationQueue,
    annotation_app,
    tasks_of,
)
from aligncap.service.web import listen

CLIPS = 200
MADE = Provenance(model="made", fingerprint="0", method="beam", options={})


def fill(store: PreferenceStore) -> None:
    """Clips with two candidates each."""
    for number in range(CLIPS):
        texts = ("He is calm.", "He is angry.")
        found = tuple(Candidate(f"c{number}", "en", text, method="beam") for text in texts)
        clip = Clip(f"c{number}", f"c{number}.wav")
        store.add_findings([(ClipCandidates(clip, "en", found), MADE)])


def sit(url: str, person: int, until_s: float) -> tuple[Counter[int], list[str], list[float]]:
    """One person's choices until a time: answers by status, ids that were kept, seconds of each."""
    statuses, kept, seconds, name = Counter[int](), list[str](), list[float](), f"person{person}"
    with httpx.Client(base_url=url, timeout=60.0, headers={TOKEN_HEADER: "token"}) as client:
        answer = client.get("/api/state", params={"annotator": name})
        while time.monotonic() < until_s and answer.status_code == 200:
            task = answer.json()["task"]
            if task is None:
                break
            body = {"id": f"{name}-{len(kept):06}", "annotator": name, "choice": "first"}
            begun_s = time.monotonic()
            answer = client.post("/api/choice", json=body | {"task": task["id"]})
            seconds.append(time.monotonic() - begun_s)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                kept.append(body["id"])
    return statuses, kept, seconds


def main(seconds: float = 60.0, people: int = 64) -> None:
    """Serve a store, have people choose, and compare what they were told with what is kept."""
    with (
        tempfile.TemporaryDirectory() as folder,
        PreferenceStore(Path(folder) / "s.sqlite") as store,
        listen("127.0.0.1", 0) as listener,
    ):
        fill(store)
        tasks = tasks_of(store.groups(), per_clip=1)
        queue = AnnotationQueue(store, tasks, Path(folder), share=1.0)
        app = annotation_app(queue, hosts=["127.0.0.1"], token="token")
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        url, until_s = f"http://127.0.0.1:{listener.getsockname()[1]}", time.monotonic() + seconds
        with ThreadPoolExecutor(people) as pool:
            found = list(pool.map(lambda person: sit(url, person, until_s), range(people)))
        in_store = Counter(one.id for one in store.annotations.all())
        server.should_exit = True
        thread.join()
    answered = [one for _, kept, _ in found for one in kept]
    times_s = np.array([one for _, _, times in found for one in times])
    print(f"people {people}, answers {dict(sum((codes for codes, _, _ in found), Counter()))}")
    print(f"choices a second {len(answered) / seconds:.0f}")
    print(f"an answer takes {np.median(times_s):.3f} s, at most {times_s.max():.3f} s")
    lost, twice = set(answered) - in_store.keys(), sum(in_store.values()) - len(in_store)
    print(f"lost {len(lost)}, twice {twice}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
