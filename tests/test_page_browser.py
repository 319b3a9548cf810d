"""results.html in a browser: Debian's chromium (apt install chromium), driven by Playwright (pip install playwright).

The page is of made-up scores with known answers, and of recordings of sines.
"""

import base64
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser import page
from ser.config import read_protocol, read_system
from ser.recipe import Report
from ser.results import Results
from ser.scores import Scores

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt install chromium")

SECONDS = 1.5
BAD = "<img src=x onerror=window.broken=1>"  # the name of an utterance
RESULTS = """\
# Results: toy

| system | WA | UA | p |
| --- | --- | --- | --- |
| **tiny**: <img src=x onerror=window.broken=1> | 40.8 ± 3.1 | 9 | 0.500 |
| **other** | not run | 100.5 | < 0.001 |
| **third** | 9.5 [8.0, 11.0] | – | 0.020 |
| **fourth** | 101.0 | 1,200 | 0.001 |
"""


def made_up(fold):
    """Scores of six utterances of three speakers; the probability of the true class grows with the number, and the
    first three are wrong."""
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4], [0.3, 0.7], [0.95, 0.05]])
    true = np.array([1, 0, 1, 0, 1, 0])
    about = {"fold": f"{fold} of 2", "seed": "1", "overlap": "", "date": "today", "commit": "0"}
    utts = [f"s{number // 2}-{number}" for number in range(6)]
    utts[5] = BAD
    return Scores(about, ["low", "high"], utts, true, shares.argmax(1), shares)


@pytest.fixture
def folder(recipe, monkeypatch):
    """A recipe's folder with results.html; its one system has two runs, curves, points of t-SNE and attention."""
    utts = made_up(1).utts
    for number in range(5):
        times = np.arange(round(SECONDS * 8000)) / 8000
        soundfile.write(f"{number}.wav", 0.5 * np.sin(2 * np.pi * 200 * (number + 1) * times), 8000)
    wavs = "".join(f"{utt} {number}.wav\n" for number, utt in enumerate(utts[:4]))
    Path("data/all/wav.scp").write_text(f"{wavs}{utts[4]} cat 4.wav |\n")
    speakers = {utt: f"speaker{utt[1]}" for utt in utts[:5]}
    system, protocol = (
        read_system(Path("conf/toy/tiny.yaml")),
        read_protocol(Path("conf/protocols/selects_on_dev.yaml")),
    )
    runs = {f"fold{fold}_seed1": made_up(fold) for fold in (1, 2)}
    scores = Path("results/tiny/selects_on_dev")
    scores.mkdir(parents=True)
    for run in runs:
        log = [
            {"epoch": n, "train_loss": 1 / n, "dev_loss": 2 / n, "train_wa": 10.0 * n, "dev_wa": 9.0 * n}
            for n in (1, 2, 3)
        ]
        (scores / f"{run}.epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    points = {
        "title": "tiny, protocol selects_on_dev, fold 1, seed 1, model 0", "utts": utts, "classes": ["low", "high"] * 3,
        "places": [[n, n, -n, n] for n in range(6)],
    }  # fmt: skip
    of_row = page.row_of
    monkeypatch.setattr(page, "row_of", lambda *arguments: of_row(*arguments) | {"tsne": points})
    shares = base64.b64encode(bytes(range(page.POINTS))).decode()
    curves = {number: {"attention": {"highest": 3.21, "shares": shares}} for number in range(4)}
    monkeypatch.setattr(page, "attention", lambda *_: {"attention": {"run": "fold1_seed1", "curves": curves}})
    found = {("tiny", protocol.name): Results(runs, {}, {}, False, False, [])}
    report = Report("toy", "tiny", [(Path("conf/toy/tiny.yaml"), system)], [protocol], [], {}, found, speakers, set())
    page.write(Path("results.html"), report, RESULTS.split("\n"))
    return recipe.folder


@pytest.fixture(scope="module")
def browser():
    # Sound needs no click first, and none is heard. A container has no sandbox.
    arguments = ["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(folder, browser):
    """The page in a browser. At the end: no message on the console, no request but for files, nothing that ran."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1300, "height": 900})
    context.set_default_timeout(20_000)
    tab = context.new_page()
    faults, requests = [], []
    tab.on("console", lambda message: faults.append(message.text))
    tab.faults = faults
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto((folder / "results.html").as_uri())
    yield tab
    assert faults == []
    assert requests and all(url.startswith(("file://", "data:")) for url in requests)
    assert tab.evaluate("window.broken") is None
    context.close()


def wait(tab, condition):
    """Wait until an expression is true. (Playwright's own wait_for_function needs eval, which the page forbids.)"""
    for _ in range(200):
        if tab.evaluate(condition):
            return
        time.sleep(0.05)
    raise AssertionError(f"not true in 10 seconds: {condition}")


def column(tab, number):
    return tab.locator(f".report tbody tr td:nth-child({number})").all_inner_texts()


def listed(tab):
    return tab.locator("#utts tbody tr td:nth-child(2)").all_inner_texts()


@pytest.mark.parametrize(
    ("name", "number", "up"),
    [
        ("WA", 2, ["9.5 [8.0, 11.0]", "40.8 ± 3.1", "101.0", "not run"]),
        ("UA", 3, ["9", "100.5", "1,200", "–"]),
        ("p", 4, ["< 0.001", "0.001", "0.020", "0.500"]),
    ],
)
def test_a_table_is_sorted_by_value(opened, name, number, up):
    head = opened.locator(".report th", has=opened.get_by_role("button", name=name, exact=True))
    head.get_by_role("button").click()
    assert column(opened, number) == up
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")  # by keyboard
    numbers = [cell for cell in up if cell not in ("not run", "–")]
    assert column(opened, number) == numbers[::-1] + up[len(numbers) :]  # what was not run is last again
    assert head.get_attribute("aria-sort") == "descending"
    assert opened.locator(".report th[aria-sort]").count() == 1


def test_the_worst_mistakes_are_first(opened):
    shares = [float(text) for text in opened.locator("#utts tbody tr td:nth-child(6)").all_inner_texts()]
    assert shares == [10, 20, 30, 60, 70, 95]
    assert listed(opened)[0] == "s0-0"
    first = opened.locator("#utts tbody tr").first.locator("td").all_inner_texts()
    assert first[2:] == ["speaker0", "high", "low", "10.0", "90.0", "10.0"]
    assert opened.locator("#bars").inner_text().split() == ["low", "90.0", "high", "(true)", "10.0"]
    assert BAD in listed(opened)  # as text


def test_filters(opened):
    opened.get_by_label("Answer").select_option("wrong")
    assert listed(opened) == ["s0-0", "s0-1", "s1-2"]
    opened.get_by_label("True class").select_option("high")
    assert listed(opened) == ["s0-0", "s1-2"]
    opened.get_by_label("Speaker").select_option("speaker1")
    assert listed(opened) == ["s1-2"]
    assert opened.locator("#utts-count").inner_text().startswith("1 of 6 utterances, 1 wrong")
    opened.get_by_role("button", name="Clear").click()
    wait(opened, "document.querySelectorAll('#utts tbody tr').length === 6")
    opened.get_by_label("Name contains").fill("S2")
    assert listed(opened) == ["s2-4"]
    opened.get_by_label("Name contains").fill("nothing")
    assert listed(opened) == [] and opened.locator("#player").is_hidden()


def test_utterances_are_sorted_by_a_column(opened):
    opened.locator("#utts").get_by_role("button", name="Utterance", exact=True).click()
    assert listed(opened) == sorted(listed(opened), key=lambda name: (name != BAD, name))
    opened.locator("#utts").get_by_role("button", name="high", exact=True).click()
    shares = [float(text) for text in opened.locator("#utts tbody tr td:nth-child(8)").all_inner_texts()]
    assert shares == sorted(shares)


def test_the_confusion_matrix_counts_and_filters(opened):
    cells = opened.locator("#confusion button")
    label = "low predicted as high: 33.3 per cent, {} utterances"
    assert cells.nth(1).get_attribute("aria-label") == label.format(2)  # of both runs
    opened.get_by_role("button", name="this run").click()
    assert cells.nth(1).get_attribute("aria-label") == label.format(1)
    cells.nth(1).press("Enter")
    assert listed(opened) == ["s0-1"]


def test_sound_plays_and_the_cursor_moves(opened):
    place = "document.querySelector('#wave .cursor').getAttribute('x1')"
    assert float(opened.evaluate(place)) == 0
    opened.get_by_role("button", name="Play s0-0").click()
    wait(opened, "document.getElementById('audio').currentTime > 0.3")
    seconds, x = opened.evaluate(f"[document.getElementById('audio').currentTime, Number({place})]")
    assert x == pytest.approx(seconds / SECONDS * page.POINTS, abs=25)
    wait(opened, f"Number({place}) > {x + 20}")
    wait(opened, "document.getElementById('audio').ended")
    assert float(opened.evaluate(place)) == pytest.approx(page.POINTS, abs=1)
    assert opened.evaluate("document.getElementById('audio').duration") == pytest.approx(SECONDS, abs=0.01)


def test_a_place_is_chosen_by_keyboard_and_mouse(opened):
    wait(opened, "document.getElementById('audio').readyState > 0")
    wave = opened.get_by_role("slider")
    for _ in range(3):
        wave.press("ArrowRight")
    wait(opened, "Math.abs(document.getElementById('audio').currentTime - 0.3) < 0.02")
    box = wave.bounding_box()
    wave.click(position={"x": box["width"] / 2, "y": 20})
    wait(opened, f"Math.abs(document.getElementById('audio').currentTime - {SECONDS / 2}) < 0.03")
    assert wave.get_attribute("aria-valuemax") == str(SECONDS)
    wave.press(" ")
    wait(opened, "document.getElementById('audio').currentTime > 0.9")


def test_attention_is_drawn_for_its_run_alone(opened):
    assert opened.locator("#wave-key").inner_text() == "1.50 s; line: attention, at most 3.21 times an equal share"
    heights = opened.locator("#wave polyline").get_attribute("points").split()
    assert len(heights) == page.POINTS
    assert [heights[0].split(",")[1], heights[-1].split(",")[1]] == ["97.0", f"{97 - 92 * 199 / 255:.1f}"]
    opened.locator("#choose-run").select_option("fold2_seed1")
    assert opened.locator("#wave polyline").count() == 0
    assert opened.locator("#wave-key").inner_text() == "1.50 s"


def test_why_there_is_no_sound(opened):
    opened.get_by_role("row").filter(has_text="s2-4").click()
    assert opened.locator("#player-note").inner_text() == "No sound: the recording is the output of a shell command."
    assert opened.locator("#audio").is_hidden()
    opened.get_by_role("row").filter(has_text=BAD).last.click()
    assert "does not list" in opened.locator("#player-note").inner_text()


def test_a_recording_that_is_gone(folder, opened):
    (folder / "1.wav").unlink()
    opened.get_by_role("row").filter(has_text="s0-1").click()
    wait(opened, "document.getElementById('player-note').textContent.includes('cannot be played')")
    assert opened.faults.pop() == "Failed to load resource: net::ERR_FILE_NOT_FOUND"


def test_all_by_keyboard(opened):
    """From the top with Tab alone: the theme, then on to the utterances, down with the arrow, and play with Enter."""
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.className") == "skip"
    met = []
    while "Play" not in (met[-1:] or [""])[0]:
        opened.keyboard.press("Tab")
        name = "document.activeElement.ariaLabel || document.activeElement.id || document.activeElement.textContent"
        met.append(opened.evaluate(name))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert met[-1] == "audio" or opened.evaluate(outline) != "none", met[-1]  # the browser marks the audio's parts
        assert len(met) < 100
    for wanted in (
        "Change to dark colours",
        "Table: Results: toy",
        "WA",
        "choose-system",
        "choose-run",
        "filter-true",
        "Play s0-0",
    ):
        assert wanted in met
    opened.keyboard.press("ArrowDown")
    assert opened.evaluate("document.activeElement.ariaLabel") == "Play s0-1"
    assert opened.locator("#player-title").inner_text().startswith("s0-1")
    opened.keyboard.press("Enter")
    wait(opened, "document.getElementById('audio').currentTime > 0.1")


def test_dark_and_light(opened, folder):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(ground)
    opened.emulate_media(color_scheme="dark")  # what the reader's system asks for
    dark = opened.evaluate(ground)
    brightness = [sum(map(int, colour.strip("rgb()").split(", "))) for colour in (dark, light)]
    assert brightness[0] < 150 < 600 < brightness[1]
    opened.get_by_role("button", name="Change to light colours").click()
    assert opened.evaluate(ground) == light
    opened.reload()  # it is remembered
    assert opened.evaluate(ground) == light
    opened.get_by_role("button", name="Change to dark colours").click()
    assert opened.evaluate(ground) == dark
    opened.emulate_media(media="print")
    assert opened.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    assert opened.locator(".top").is_hidden() and opened.locator("#filters").is_hidden()


def test_learning_curves(opened):
    assert opened.locator("#curves canvas").count() == 2
    frame = opened.locator("#curves .plot").first
    frame.focus()
    for _ in range(2):
        frame.press("ArrowRight")
    assert opened.locator("#curves h4").first.inner_text() == "Loss, epoch 2: training 0.5, development 1"


def test_points_of_tsne(opened):
    plane = opened.locator("#tsne svg").first
    box, spot = plane.bounding_box(), plane.locator("circle").nth(1).bounding_box()
    plane.hover(position={"x": spot["x"] - box["x"] + 4, "y": spot["y"] - box["y"] + 4})
    assert opened.locator("#tsne-point").inner_text() == "s0-1: high, predicted high by fold1_seed1, speaker speaker0"
    assert opened.locator("#tsne circle.chosen").count() == 2  # in both planes
    plane.press("ArrowRight")
    assert opened.locator("#tsne-point").inner_text().startswith("s1-2: ")
    plane.press("Enter")
    assert listed(opened) == ["s1-2"]
    opened.get_by_role("button", name="by speaker").click()
    assert opened.locator("#tsne-key button").all_inner_texts() == ["speaker0", "speaker1", "speaker2", "unknown"]


def test_a_system_in_a_table_leads_to_its_runs_and_the_address_keeps_the_choice(opened):
    opened.locator(".report td a", has_text="tiny").click()
    wait(opened, "Math.abs(document.getElementById('look').getBoundingClientRect().top) < 200")
    opened.locator("#choose-run").select_option("fold2_seed1")
    assert opened.url.endswith("#run/tiny/selects_on_dev/fold2_seed1")
    opened.reload()
    assert opened.locator("#choose-run").input_value() == "fold2_seed1"


def test_a_narrow_window(opened):
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400
