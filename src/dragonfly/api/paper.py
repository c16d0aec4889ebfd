"""What the wallet's few HTML pages share: one style for screen and paper, no script, nothing from elsewhere."""

import base64
import hashlib
from html import escape

from starlette.responses import Response

STYLE = """
:root{color-scheme:light;--ink:#1c2526;--soft:#5a6667;--line:#d8d6cd;--accent:#0b6b6f}
*{box-sizing:border-box}
body{margin:0 auto;max-width:46rem;padding:2.5rem 1.5rem;background:#fff;color:var(--ink);
font:16px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans SC","PingFang SC","Microsoft YaHei",
sans-serif;font-variant-numeric:tabular-nums}
header,.parties{display:flex;flex-wrap:wrap;gap:1rem 3rem;justify-content:space-between}
header{align-items:baseline;border-bottom:2px solid var(--ink);padding-bottom:.75rem}
h1{font-size:1.6rem;line-height:1.2;margin:0}.brand{font-weight:650;margin:0}
.parties{margin:1.75rem 0}.parties>*{flex:1 1 15rem;min-width:0}
h2{font-size:.82rem;font-weight:500;color:var(--soft);margin:0 0 .2rem}
address,dl,dd,p{margin:0;font-style:normal;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem}dt{color:var(--soft)}
table{border-collapse:collapse;width:100%;margin:1.5rem 0}
th,td{border-top:1px solid var(--line);padding:.55rem 0;text-align:left;font-weight:400;vertical-align:top}
td{text-align:right;white-space:nowrap;padding-left:1.5rem}
.total>*{border-top:2px solid var(--ink);font-weight:650}
.note{color:var(--soft);font-size:.9rem;margin-top:1rem}a{color:var(--accent)}
.state{font-size:1.15rem;margin:1.5rem 0}
@media print{@page{size:A4;margin:18mm}body{padding:0;max-width:none;font-size:11pt}.screen{display:none}}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}


def paper(title: str, language: str, body: str, *, head: str = "") -> Response:
    """A whole page; `body` and `head` are HTML, the rest is text."""
    html = (
        f'<!doctype html>\n<html lang="{"zh-Hans" if language == "zh" else "en"}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{head}'
        f"<title>{escape(title)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return Response(html, media_type="text/html; charset=utf-8", headers={**HEADERS, "Content-Language": language})


def paper_language(wanted: str) -> str:
    """One of ours; English for everything else."""
    return "zh" if wanted.lower().startswith("zh") else "en"
