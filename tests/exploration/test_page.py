"""The page stands alone: it loads nothing, its commands give its figures, a browser draws it."""

import html.parser
import json
import re
import shlex
import shutil
import subprocess

import pytest

from tern_hw import estimate, explore
from tern_hw.estimate import estimate_parser
from tern_hw.exploration import page as page_module
from tern_hw.exploration.objectives import OBJECTIVES
from tern_hw.exploration.page import page_points
from tests.exploration.sweeps import OPTIONS

#: Attributes by which a page loads something, or goes somewhere.
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction"}
#: Elements that a page has no use for here.
STRANGE = {"link", "iframe", "object", "embed", "img", "base", "form", "a", "frame", "video"}
#: Names under which Chromium is installed.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Seconds that a browser has to draw the page, on a machine with other work.
PATIENCE_S = 120


class Page(html.parser.HTMLParser):
    """Elements, scripts, styles and the table's cells of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], {}
        self.rows, self.hidden = {}, set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "link", "input", "br", "img", "hr"):
            self.open.append((tag, attributes.get("id")))
        if tag == "tr" and "id" in attributes:
            self.rows[attributes["id"]] = []
            if "hidden" in attributes:
                self.hidden.add(attributes["id"])
        if tag == "td":
            [*self.rows.values()][-1].append("")

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag, f"{opened} is closed by {tag}"

    def handle_data(self, data):
        tag, name = self.open[-1] if self.open else ("", None)
        self.texts.setdefault(tag, []).append(data)
        self.texts.setdefault(f"#{name}", []).append(data)
        if any(each == "td" for each, _ in self.open):
            [*self.rows.values()][-1][-1] += data


@pytest.fixture
def made(small, tmp_path, capsys):
    """Return the path of a page, and the facts that it shows."""
    path = tmp_path / "front.html"
    options = [*OPTIONS, "--memory", "lpddr5,hbm2", "--html", str(path), "--json"]
    assert explore.main(["--model", small, *options]) == 0
    return path, json.loads(capsys.readouterr().out)


def test_page_loads_nothing(made):
    """By its elements and styles; and the browser is told to refuse whatever a script might ask."""
    page = Page(made[0].read_text())
    assert not page.open
    tags = [tag for tag, _ in page.elements]
    assert not set(tags) & STRANGE
    for tag, attributes in page.elements:
        assert not set(attributes) & LOADING, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    styles = "".join(page.texts["style"])
    assert "url(" not in styles
    assert "@import" not in styles
    policy = next(each for _, each in page.elements if "http-equiv" in each)
    assert policy["http-equiv"] == "Content-Security-Policy"
    rules = dict(rule.split(maxsplit=1) for rule in policy["content"].split("; "))
    assert rules["default-src"] == rules["form-action"] == rules["base-uri"] == "'none'"
    assert not re.search("https?:|[*]", policy["content"])
    own = [each for each in page.texts["script"] if len(each) < 100_000]
    assert not re.search("https?://|fetch|XMLHttpRequest|import\\(", "".join(own))
    assert 'showSendToCloud: false, plotlyServerURL: ""' in "".join(own)
    assert max(map(len, page.texts["script"])) > 1_000_000  # plotly itself


def test_table_has_every_point_with_a_command_that_parses(made):
    path, facts = made
    rows = Page(path.read_text()).rows
    assert len(rows) == len(facts["points"]) == 16
    for point in facts["points"]:
        number, front, *cells, bound, command = rows[f"point-{point['number']}"]
        assert (number, front == "yes") == (str(point["number"]), point["front"])
        assert cells[: len(facts["axes"])] == [str(each) for each in point["values"].values()]
        assert bound == point["figures"]["bound"]
        assert command == point["command"]
        args = estimate_parser().parse_args(shlex.split(command)[3:])
        assert {name: getattr(args, name) for name in ("lanes", "rows", "memory")} == {
            name: point["values"][name] for name in ("lanes", "rows", "memory")
        }


def test_a_command_gives_the_row_s_figures_again(made, capsys):
    path, facts = made
    row = Page(path.read_text()).rows["point-16"]
    assert estimate.main([*shlex.split(row[-1])[3:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    energy, time = row[2 + len(facts["axes"]) :][:2]
    assert energy == f"{found['decode']['joules_per_token']['mid'] * 1e3:.6g}"
    assert time == f"{found['decode']['seconds'] * 1e3:.6g}"


def test_data_of_the_plot_is_the_points(made):
    path, facts = made
    (text,) = Page(path.read_text()).texts["#data"]
    data = json.loads(text)
    assert data["front"] == [each["front"] for each in facts["points"]]
    assert data["axes"]["memory"] == [each["values"]["memory"] for each in facts["points"]]
    for each in data["objectives"]:
        one = OBJECTIVES[each["name"]]
        assert each["label"] == f"{one.title}, {one.unit}"
        shown = [one.shown(point["figures"]) for point in facts["points"]]
        assert each["values"] == pytest.approx(shown, rel=1e-8)


def test_text_of_the_user_s_is_never_markup(made):
    _, facts = made
    evil = '</script><script src="http://example.com/x.js"></script>'
    facts["model"]["name"] = evil
    facts["axes"]["memory"] = [evil, "hbm2"]
    for point in facts["points"]:
        point["command"] = f"python -m tern_hw.estimate --model '{evil}'"
        point["values"]["memory"] = evil
    page = Page(page_module.page(facts))
    assert not [each for tag, each in page.elements if tag == "script" and "src" in each]
    assert page.rows["point-1"][-1] == facts["points"][0]["command"]
    assert evil in page.texts["h1"][0]


def test_a_page_of_many_keeps_the_front(made, monkeypatch):
    _, facts = made
    monkeypatch.setattr(page_module, "MOST_POINTS", facts["counts"]["front"] + 2)
    kept = page_points(facts)
    assert sum(each["front"] for each in kept) == facts["counts"]["front"]
    assert len(kept) == facts["counts"]["front"] + 2 < len(facts["points"])
    assert f"This page has {len(kept)} of them." in page_module.page(facts)


def browser():
    """Return the path of an installed Chromium, or skip the test."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


def opened(path, folder, view):
    """Return the page as a real browser has it after its script has run, and what it logged."""
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"file://{path}#{view}",
    ]
    child = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert child.returncode == 0, child.stderr
    return child.stdout, child.stderr


def test_a_browser_draws_every_point(made, tmp_path):
    """With a view in the address: searched, sorted downwards by the array's area, one chosen."""
    path, facts = made
    column = 2 + len(facts["axes"]) + [*OBJECTIVES].index("array-area")
    view = f"x=area&y=first-token&colour=lanes&filter=HBM2+64&sort={column}.down&point=16"
    dom, log = opened(path, tmp_path / "profile", view)
    messages = [line for line in log.splitlines() if "CONSOLE" in line]
    assert messages == []
    values = [each["values"] for each in facts["points"]]
    shown = [each for each in values if each["memory"] == "hbm2" and each["group_size"] == "64"]
    assert dom.count('<path class="point') == len(shown) == 6
    page = Page(dom[: dom.index('<div id="plot"')] + dom[dom.index('<p id="chosen"') :])
    assert len(page.rows) - len(page.hidden) == 6
    areas = [float(row[column]) for row in page.rows.values()]
    assert areas == sorted(areas, reverse=True) != sorted(areas)
    assert "6 of 16 points shown" in page.texts["#count"]
    chosen = next(each for each in facts["points"] if each["number"] == 16)
    assert chosen["command"] in page.texts["code"][0]
    for label in ("area, mm2", "time to the first token, s"):
        assert re.search(f"<text[^>]*title[^>]*>{label}</text>", dom)
    assert 'data-title="Share' not in dom
    assert 'data-title="Zoom in"' in dom
