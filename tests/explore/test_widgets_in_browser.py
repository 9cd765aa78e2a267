"""Notebook 0 in JupyterLab, in a real browser: it runs, and its pictures follow its sliders."""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from negmeta_utils.storage import paths
from negmeta_utils.studies import study_file

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

PATIENCE = 180_000  # ms: conditions are waited for, on a machine that may be busy
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# News and updates would be asked of the network.
QUIET = '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}'
LOADED = "image => image.complete && image.naturalWidth > 0"
PIXELS = """image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""

ERROR = "[data-mime-type='application/vnd.jupyter.error']"
ALL_RAN = """([n_cells, error]) => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
    const ran = prompts.filter(prompt => /\\[\\d+\\]/.test(prompt.textContent));
    return ran.length == n_cells || document.querySelector(error);
}"""


def is_open(cell):
    return not cell.metadata.get("jupyter", {}).get("source_hidden")


@pytest.fixture
def lab(tmp_path):
    """The notebook's address in a JupyterLab on a copy of it, with folders of its own, and how
    many code cells show whether they ran: a folded one does not."""
    notebook = nbformat.read(study_file.NOTEBOOKS / "00_explore.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.execution_count = None  # so that a number says: run here
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "00_explore.ipynb")
    settings = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(QUIET)
    token, port = secrets.token_hex(16), free_port()
    folders = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }  # fmt: skip
    environment = {
        **os.environ, **{name: str(tmp_path / folder) for name, folder in folders.items()},
        "PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={tmp_path / 'notebooks'}",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api", server, tmp_path / "log")
        yield f"{address}/lab/tree/00_explore.ipynb?token={token}", sum(map(is_open, code))
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()  # its kernels end with it
            server.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, server, log):
    for _ in range(480):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.25)
    pytest.fail(f"JupyterLab does not answer: {log.read_text()}")


ELSEWHERE = re.compile(r"https?://(?!127\.0\.0\.1)")
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def chromium():
    """A page of a headless Chromium, and the list of what goes wrong in it and in its kernels."""
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = [path for path in map(shutil.which, BROWSERS) if path]
        if not found and not own.exists():
            pytest.skip(f"no browser: none of {', '.join(BROWSERS)}, nor Playwright's own Chromium")
        browser = playwright.chromium.launch(
            executable_path=found[0] if found else None, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        # The badge's picture lies elsewhere: the test needs no network, nor fails where there is.
        page.route(ELSEWHERE, lambda route: route.fulfill(content_type="image/svg+xml", body=EMPTY))
        wrong = []
        page.on("pageerror", lambda error: wrong.append(f"page: {error}"))
        page.on(
            "console", lambda said: is_wrong(said) and wrong.append(f"{said.text}: {said.location}")
        )
        page.on("websocket", lambda socket: socket.on("framereceived", watch_kernel(wrong)))
        yield page, wrong
        browser.close()


def is_wrong(said):
    """JupyterLab asks the browser for `attachment:` before it puts the picture itself there."""
    return said.type == "error" and not said.location["url"].startswith("attachment:")


def watch_kernel(wrong):
    """A cell's error would be seen in its output; one in a slider's callback in a message only."""

    def received(frame):
        content = frame if isinstance(frame, bytes) else frame.encode()
        if re.search(rb'"msg_type":\s*"error"', content):
            wrong.append(f"kernel: {content[-3000:].decode(errors='replace')}")

    return received


def run_all_cells(page, n_cells):
    # Before the kernel is there, JupyterLab would ask which one to take.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RAN, arg=[n_cells, ERROR])


def move(box, name, key):
    """Press `key` on the slider called `name`; what its picture shows before and after."""
    picture = box.locator("img.widget-image")
    box.page.wait_for_function(LOADED, arg=picture.element_handle())
    before = picture.evaluate(PIXELS)
    box.locator(f".widget-slider:has(.widget-label:text-is('{name}')) .noUi-handle").press(key)
    box.page.wait_for_function(
        f"([image, before]) => ({LOADED})(image) && ({PIXELS})(image) !== before",
        arg=[picture.element_handle(), before],
    )
    return before, picture.evaluate(PIXELS)


def check_reach(box):
    """A slider is wide and its handle large enough to hit, and Tab goes to it from what is before
    it."""
    handle = box.locator(".noUi-handle").last
    assert box.locator(".widget-slider").last.bounding_box()["width"] > 300
    assert min(handle.bounding_box()[side] for side in ("width", "height")) >= 24
    box.locator("select").last.focus()
    for _ in range(3):  # a slider before it and its readout may lie between
        box.page.keyboard.press("Tab")
        if handle.evaluate("handle => handle === document.activeElement"):
            return
        assert box.locator(".noUi-handle").count() > 1, "Tab does not lead to the slider"


def test_sliders_move_the_pictures_of_the_notebook(chromium, lab):
    page, wrong = chromium
    address, n_cells = lab
    page.goto(address)
    run_all_cells(page, n_cells)
    assert page.locator(ERROR).all_inner_texts() == []
    attached = page.locator(".jp-MarkdownOutput img").first
    assert attached.evaluate("image => image.naturalWidth") > 0
    sections = page.locator(".widget-vbox:has(img.widget-image)").all()
    sliders = (
        ("update", "ArrowLeft", "ArrowRight"),
        ("episode", "ArrowRight", "ArrowLeft"),
        ("episode", "End", "Home"),
        ("step", "ArrowLeft", "ArrowRight"),
    )
    for box, (name, there, back) in zip(sections, sliders, strict=True):
        first, moved = move(box, name, there)
        again, returned = move(box, name, back)
        assert moved == again != first
        assert returned == first, f"{name}: another picture at the same place"
        check_reach(box)
    assert wrong == []
