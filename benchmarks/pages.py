"""Dagster's pages on the cohort of a nation, in a browser: how long until a person sees what they came for.

Needs Playwright and Chromium, and is skipped without them. CT_SHOTS names a folder for pictures.
"""

import importlib.util
import os
import re
import shutil
import socket
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Measured, Row, Target, apart, timed
from benchmarks.tick import PATIENCE_S, prepare, serving
from ctcore.project import Project
from ctcore.projects.dagster_home import environment

ASSAYS = 100_000
QUICK = 20
FEW = 10  # the same pages where partitions cost nothing
SECONDS = 5.0
SEEN = ("summary", "joined", "quality")  # what the dialog asks about: the step itself, and what it takes


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    assays = QUICK if quick else ASSAYS
    if importlib.util.find_spec("playwright") is None or shutil.which("chromium") is None:
        print("  without pages: Playwright (pip install playwright) and chromium are needed", file=sys.stderr)
        return
    few, many = (_pages(folder / str(number), number) for number in (FEW, assays))
    for what, found in many.items():
        baseline = f"the same, {FEW} partitions"
        yield Row(f"Dagster, {what}", f"{assays} partitions", found, baseline, few[what], Target(SECONDS, "s"))


def _pages(root: Path, assays: int) -> dict[str, Measured]:
    apart(prepare, root, assays)
    apart(materialized, root, assays)
    return apart(visited, root, assays)


def materialized(root: Path, assays: int) -> None:
    """Dagster's own record of three steps, all partitions: one event reported, the others copied from it."""
    os.environ.update(environment(Project(root)))
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("reference", partition="genome"))
        for name in SEEN:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition="A0"))
    columns = "run_id, dagster_event_type, timestamp, step_key, asset_key, event, partition"
    connection = sqlite3.connect(root / "dagster_home/history/runs/index.db")
    with connection:
        for name in SEEN:
            mine = f"SELECT {columns} FROM event_logs WHERE asset_key = ? AND partition = 'A0'"
            *same, text, _ = connection.execute(mine, (f'["{name}"]',)).fetchone()
            copies = ((*same, text.replace('"A0"', f'"A{at}"'), f"A{at}") for at in range(1, assays))
            connection.executemany(f"INSERT INTO event_logs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", copies)
    connection.close()


def visited(root: Path, assays: int) -> dict[str, Measured]:
    """The pages one after the other, as a person would go, each once the server has answered once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    arguments = ("-m", "dagster_webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port))
    with serving(root, *arguments):
        _wait_for(f"{base}/server_info")
        return browsed(base, assays)


def browsed(base: str, assays: int) -> dict[str, Measured]:
    """With a browser of its own."""
    from playwright.sync_api import sync_playwright

    found: dict[str, Measured] = {}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(PATIENCE_S * 1000 / 3)
        for what, visit in _visits(page, base, assays).items():
            found[what] = timed(visit, times=1)
            print(f"  {what}: {found[what].seconds:.1f} s", file=sys.stderr)
            if shots := os.environ.get("CT_SHOTS"):
                page.screenshot(path=str(Path(shots) / f"nation-{assays}-{what.replace(' ', '-')}.png"))
        browser.close()
    return found


def _visits(page: Any, base: str, assays: int) -> dict[str, Callable[[], None]]:
    def asset_list() -> None:
        page.goto(f"{base}/assets")
        page.get_by_text(f"{assays:,} partitions").first.wait_for()

    def asset() -> None:
        page.goto(f"{base}/assets/summary?view=overview")
        page.get_by_text(re.compile("^(Latest partition event|Latest materialization|Partitions)")).nth(1).wait_for()

    def partitions() -> None:
        page.goto(f"{base}/assets/summary?view=partitions")
        page.get_by_text(f"{assays:,} Partitions Selected").first.wait_for()

    def dialog() -> None:
        page.get_by_role("button", name="Materialize").first.click()
        page.get_by_role("dialog").get_by_text(re.compile("Partition selection|Launch")).first.wait_for()

    return {"asset list": asset_list, "asset page": asset, "its partitions": partitions, "launch dialog": dialog}


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
