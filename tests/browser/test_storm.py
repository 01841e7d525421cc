"""A view takes whatever comes: few messages, and hardly any time of the processor."""

from __future__ import annotations

import json

from tests.browser.conftest import OpenNotebook
from tests.browser.frames import most_in_a_second

RECORDS = 10_000
SECONDS = 10.0
MOST_MESSAGES_A_SECOND = 10
MOST_OF_A_CORE = 0.02

# The time of the thread, not that of the clock: other processes of this machine do not count.
STORM = f"""\
import json, time
from nbloader.records import (
    Component, FileProgress, Kind, RepoFile, Selected, Selection, Stage, StageStarted,
)
from nbloader.reporter import Reporter
from nbloader.views import ViewName, choose_view, front_end, make_view

paths = [f"part{{n // 10}}/model-{{n:05d}}.safetensors" for n in range(30)]
selection = Selection(
    repo_id="org/name", revision="main", commit_hash="a" * 40, kind=Kind.DIFFUSERS, class_name=None,
    files=tuple(RepoFile(path=path, size=10**9, etag="b" * 40) for path in paths),
    components=tuple(
        Component(name=f"part{{n}}", paths=tuple(paths[10 * n : 10 * n + 10]))
        for n in range(3)
    ),
)
view = make_view(choose_view(ViewName.AUTO, front_end()), stream=None)
reporter = Reporter("org/name", view, None)
used = 0.0

def take(event):
    global used
    before = time.thread_time()
    reporter.publish(event)
    used += time.thread_time() - before

for event in (
    StageStarted(stage=Stage.CONNECT), Selected(selection=selection),
    StageStarted(stage=Stage.DOWNLOAD),
):
    take(event)
used = 0.0  # the widgets are built once
begun, storm = time.monotonic(), time.time()
for number in range({RECORDS}):
    while (wait := begun + number * {SECONDS} / {RECORDS} - time.monotonic()) > 0:
        time.sleep(wait)
    take(FileProgress(path=paths[number % 30], completed=30_000 * (number + 1)))
print(json.dumps([used / (time.time() - storm), storm, time.time()]))
view.close(reporter.state)
"""


def test_ten_thousand_records_in_ten_seconds(open_cells: OpenNotebook) -> None:
    notebook = open_cells(STORM)
    notebook.run()
    share, begun, ended = json.loads(notebook.wait_for_text(r"\[\d[^\]]*\]"))
    updates = [
        message.time
        for message in notebook.received
        if message.kind == "comm_msg" and begun <= message.time <= ended
    ]
    assert len(updates) >= SECONDS, "the view hardly moved"
    most = most_in_a_second(updates)
    assert most <= MOST_MESSAGES_A_SECOND, f"{most} messages within a second"
    assert share < MOST_OF_A_CORE, f"{100 * share:.2f} % of a core"
