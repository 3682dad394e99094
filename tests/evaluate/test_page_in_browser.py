"""The page in a real browser: at two widths, and beside a page with the faults that are looked for."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import made
import pytest

from learned_opt.evaluate.report import page
from learned_opt.evaluate.summary import Summary

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=5000",
    "--dump-dom",
)
# Nothing but what is in the file may load: whatever else is tried is refused, and said on the console.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'; frame-src 'self'"
MEASURE = """
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const inside = frame.contentDocument;
    const size = (picture) => { const box = picture.getBoundingClientRect(); return [box.width, box.height]; };
    found[frame.id] = {
      figures: [...inside.querySelectorAll("figure")].map((figure) => [...figure.querySelectorAll("svg")].map(size)),
      empty: [...inside.querySelectorAll("figure svg")].filter((svg) => !svg.querySelector("path")).length,
      overflow: inside.documentElement.scrollWidth - inside.documentElement.clientWidth,
      smallest: Math.min(...[...inside.querySelectorAll("td, p")].map((x) => parseFloat(getComputedStyle(x).fontSize))),
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
"""
BROKEN = (
    '<!doctype html><figure></figure><p style="width: 900px">wide</p><img src="https://example.invalid/x.png">'
    '<script>throw new Error("thrown at example.invalid")</script>'
)


@pytest.fixture(scope="module")
def report():
    return page.html(Summary(made.results(more=("lion", "sgd"))))


@pytest.fixture(scope="module")
def seen(report, tmp_path_factory):
    """What the browser measured by page, and the lines of its console."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: the page is not looked at in a browser")
    directory = tmp_path_factory.mktemp("browser")
    frames = {"phone": (390, report), "desk": (1280, report), "broken": (390, BROKEN)}
    body = "".join(
        f'<iframe id="{name}" style="width: {width}px; height: 800px; border: 0" srcdoc="{html.escape(text)}"></iframe>'
        for name, (width, text) in frames.items()
    )
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    (directory / "all.html").write_text(
        f'<!doctype html><meta charset="utf-8">{policy}<script>{MEASURE}</script><pre id="found"></pre>{body}'
    )
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={directory / 'user'}", (directory / "all.html").as_uri()]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    text = re.search(r'<pre id="found">(.*?)</pre>', finished.stdout, re.DOTALL)[1]
    return json.loads(html.unescape(text)), re.findall(r"CONSOLE.*", finished.stderr)


def test_the_faults_are_seen_where_they_are(seen):
    pages, console = seen
    assert pages["broken"]["overflow"] > 400
    assert pages["broken"]["figures"] == [[]]
    assert any("thrown at example.invalid" in line for line in console)
    assert any("https://example.invalid/x.png" in line for line in console)


def test_nothing_is_loaded_and_nothing_is_said_on_the_console(seen):
    pages, console = seen
    assert [line for line in console if "example.invalid" not in line] == []
    assert pages["phone"]["loaded"] == pages["desk"]["loaded"] == []


@pytest.mark.parametrize("width", ["phone", "desk"])
def test_every_figure_is_there(seen, width):
    found = seen[0][width]
    assert len(found["figures"]) == 2 * len(made.TASKS) + 8  # curves, four dot plots, two by horizon, two profiles
    for pictures in found["figures"]:
        [(across, down)] = pictures
        assert across > 150
        assert down > 100
    assert found["empty"] == 0


def test_a_phone_shows_it_without_scrolling_sideways(seen):
    assert seen[0]["phone"]["overflow"] == seen[0]["desk"]["overflow"] == 0
    assert seen[0]["phone"]["smallest"] >= 12


class Resources(HTMLParser):
    """Collects whatever would make a browser load something, or run it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [tag] * (tag in ("script", "iframe", "object", "embed", "img", "video", "audio", "base"))
        for name, value in attrs:
            if name.startswith("on") or (
                name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster")
                and not value.startswith(("#", "data:"))
            ):
                self.found.append(f"{tag} {name}={value}")


def test_the_file_names_nothing_to_load(report):
    """Without a browser, too."""
    parser = Resources()
    parser.feed(report)
    assert parser.found == []
    assert not re.search(r"https?:|@import|@font-face", report)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", report))
