"""The pages in a browser: nothing fails in their script, no request is made, names of strangers are text."""

import json
import re
import shutil
import subprocess

import pytest
from made import HOSTILE, make_hostile_run, make_run

from vitft.report.comparison import compare, comparison_page
from vitft.report.page import run_page
from vitft.report.record import read_record

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here (Debian's package of that name)")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000",
)  # fmt: skip
PROBE = """
const heading = [...document.querySelectorAll("th button")].find((each) => each.textContent === "images");
heading?.click();
const search = document.querySelector("input[type=search]");
if (search) { search.value = "蒲公英"; search.dispatchEvent(new Event("input")); }
const rows = [...(document.querySelector("table.sortable")?.tBodies[0].rows ?? [])];
const seen = {
  shown: rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent),
  names: rows.map((row) => row.cells[0].textContent),
  sorted: heading?.closest("th").getAttribute("aria-sort"),
  images: [...document.images].map((image) => image.naturalWidth > 0),
  requests: performance.getEntriesByType("resource").map((each) => each.name).filter((name) => !/^data:/.test(name)),
  is_too_wide: document.documentElement.scrollWidth > window.innerWidth,
};
document.title = "SEEN" + JSON.stringify(seen) + "SEEN";
"""


def look(folder, page, width=1280):
    """Open a page with the probe behind it; return what the probe saw, and what the browser complained of."""
    # The probe needs leave of the page's own policy, which allows our script alone.
    probed = re.sub(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", page, count=1)
    probed = probed.replace("</body>", f"<script>{PROBE}</script></body>")
    (folder / "page.html").write_text(probed, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run(
        [*command, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r"<title>SEEN(.*?)SEEN</title>", done.stdout, re.DOTALL)
    assert found, done.stderr
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(text), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 500])
def test_a_page_with_hostile_names_works_and_asks_for_nothing(tmp_path, width):
    run = make_run(tmp_path, classes=HOSTILE, num_rows=140)
    seen, complaints = look(tmp_path, run_page(read_record(run)), width)
    assert complaints == []
    assert seen["requests"] == []
    assert seen["images"] and all(seen["images"])
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[4]} <= set(seen["names"]) and len(seen["names"]) == len(HOSTILE)
    assert set(seen["shown"]) >= {"蒲公英"} and len(seen["shown"]) < len(seen["names"])
    assert seen["sorted"] == "ascending"
    assert not seen["is_too_wide"]


def test_the_policy_of_a_page_lets_its_own_script_run(tmp_path):
    page = run_page(read_record(make_run(tmp_path)))
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert 'type="search"' in done.stdout
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_comparison_works_and_asks_for_nothing(tmp_path):
    runs = [make_hostile_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    seen, complaints = look(tmp_path, comparison_page(compare([read_record(run) for run in runs])), 500)
    assert complaints == [] and seen["requests"] == [] and seen["images"] == []
    assert not seen["is_too_wide"]
