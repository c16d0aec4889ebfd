"""Every mail as a browser draws it: both languages, telephone and desk, light and dark.

Skipped where no Chromium is installed. MAIL_PICTURES=folder keeps the sheets, to look at.
"""

import html
import json
import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from dragonfly.mail.kinds import MailKind
from dragonfly.mail.rules import LANGUAGES
from tests.unit.test_mail_templates import values_of, written

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES_VARIABLE = "MAIL_PICTURES"
WIDTHS = {"telephone": 360, "desk": 760}
HEIGHT = 900
COLUMNS = 6
CONTRAST_MIN = 4.5
"""Of text against what is behind it: WCAG 2.2, AA."""
LONG = "W" * 60
"""Without a place to break: names of keys and devices may look like this."""
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
)
SCHEMES = {"light": "--blink-settings=preferredColorScheme=1", "dark": "--blink-settings=preferredColorScheme=0"}

SHEET = """<!doctype html><meta charset="utf-8"><body style="margin:0">
%s
<pre id="found"></pre>
<script>
const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = (rgb) => {
  const [r, g, b] = rgb.slice(0, 3).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node, view) => {
  for (; node; node = node.parentElement) {
    const rgb = channels(view.getComputedStyle(node).backgroundColor);
    if (rgb.length === 3 || rgb[3] > 0) return rgb;
  }
  return [255, 255, 255];
};
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
    const texts = [...page.body.querySelectorAll("*")].filter(
      (one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
    const ratios = texts.map((one) => {
      const [a, b] = [light(channels(view.getComputedStyle(one).color)), light(behind(one, view))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
    return {
      name: frame.title,
      over: root.scrollWidth - frame.clientWidth,
      outside: texts.filter((one) => one.getBoundingClientRect().right > frame.clientWidth).length,
      texts: texts.length,
      contrast: Math.min(...ratios),
      paper: light(behind(page.body, view)),
      loaded: view.performance.getEntriesByType("resource").length,
      tall: root.scrollHeight,
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
};
</script>"""


def frames(language: str, width: int) -> str:
    """All mails in one language, each in a frame as wide as a window; once with usual and once with long values."""
    shown = []
    for kind in MailKind:
        for name, value in (("", None), (" with long values", LONG)):
            values = values_of(kind)
            if value is not None:
                wide = {
                    key: value for key in values if key in ("name", "hint", "device", "reference", "ticket", "title")
                }
                if not wide:
                    continue
                values |= wide
            page = html.escape(written(kind, language, values).html)
            size = f'width="{width}" height="{HEIGHT}" style="border:0;vertical-align:top"'
            shown.append(f'<iframe title="{kind.value}{name}" {size} srcdoc="{page}"></iframe>')
    return "".join(shown)


def drawn(tmp_path: Path, sheet: str, scheme: str, width: int, *more: str) -> str:
    """What Chromium says of the sheet."""
    (tmp_path / "sheet.html").write_text(SHEET % sheet)
    assert CHROMIUM is not None
    rows = -(-sheet.count("<iframe") // COLUMNS)
    size = f"--window-size={COLUMNS * width + 30},{rows * HEIGHT + 60}"
    place = (size, SCHEMES[scheme], f"--user-data-dir={tmp_path}/profile", *more, f"file://{tmp_path}/sheet.html")
    ended = subprocess.run([CHROMIUM, *SWITCHES, *place], check=True, capture_output=True, timeout=120)
    return ended.stdout.decode()


def what_is_wrong(one: dict[str, Any], scheme: str) -> list[str]:
    """What a reader would stumble over."""
    return [
        word
        for word, is_wrong in {
            "wider than the window": one["over"] > 0 or one["outside"] > 0,
            "empty": one["texts"] < 4,
            "hard to read": one["contrast"] < CONTRAST_MIN,
            "not as light or dark as asked": (one["paper"] > 0.5) != (scheme == "light"),
            "loads something": one["loaded"] > 0,
        }.items()
        if is_wrong
    ]


def colours_of(picture: bytes) -> int:
    """How many different rows of pixels a PNG has: one that shows nothing has very few."""
    assert picture.startswith(b"\x89PNG")
    packed, at = b"", 8
    width = int.from_bytes(picture[16:20], "big")
    depth = {2: 3, 6: 4}[picture[25]]
    while at < len(picture):
        length = int.from_bytes(picture[at : at + 4], "big")
        if picture[at + 4 : at + 8] == b"IDAT":
            packed += picture[at + 8 : at + 8 + length]
        at += 12 + length
    pixels = zlib.decompress(packed)
    row = width * depth + 1
    return len({pixels[start : start + row] for start in range(0, len(pixels), row)})


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: mails are NOT looked at as pictures here")
@pytest.mark.parametrize("window", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_mail_is_drawn_whole_legible_and_without_asking_anybody(
    tmp_path: Path, scheme: str, window: str
) -> None:
    width = WIDTHS[window]
    sheet = "".join(frames(language, width) for language in LANGUAGES)
    picture = tmp_path / "sheet.png"
    page = drawn(tmp_path, sheet, scheme, width, "--dump-dom", f"--screenshot={picture}")
    told = re.search(r'<pre id="found">(.+?)</pre>', page, re.DOTALL)
    assert told is not None
    found = json.loads(html.unescape(told[1]))
    assert len(found) == sheet.count("<iframe")
    assert {one["name"]: wrong for one in found if (wrong := what_is_wrong(one, scheme))} == {}
    if not picture.exists():  # some versions do one of both at a time
        drawn(tmp_path, sheet, scheme, width, f"--screenshot={picture}")
    rows = -(-len(found) // COLUMNS)
    assert colours_of(picture.read_bytes()) > 50 * rows
    if folder := os.environ.get(PICTURES_VARIABLE):
        shutil.copy(picture, Path(folder) / f"{window}-{scheme}.png")
