"""Style sheet and scripts, in a folder whose name is the hash of all of them, so that they may be kept for ever.

The scripts import each other by relative addresses and so always meet their own version.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

HASH_LENGTH = 16
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
CACHED = {"Cache-Control": "public, max-age=31536000, immutable"}


class Asset(NamedTuple):
    """One file."""

    content: bytes
    media_type: str


class Assets:
    """The files of `static/`, and `made`, which are written at the start."""

    def __init__(self, made: Mapping[str, bytes]) -> None:
        folder = resources.files("dragonfly.web") / "static"
        self._files = {**{file.name: file.read_bytes() for file in folder.iterdir()}, **made}
        digest = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        self.version = digest.hexdigest()[:HASH_LENGTH]

    def address(self, name: str) -> str:
        """Where browsers find a file."""
        assert name in self._files, f"there is no {name}"
        return f"/assets/{self.version}/{name}"

    def integrity(self, name: str) -> str:
        """What a page says of a file, so that no other is taken for it."""
        return "sha256-" + base64.b64encode(hashlib.sha256(self._files[name]).digest()).decode()

    def find(self, version: str, name: str) -> Asset | None:
        """A file of exactly this version; None: there is none, or it is another version's."""
        content = self._files.get(name) if version == self.version else None
        return None if content is None else Asset(content, MEDIA_TYPES[name.rpartition(".")[2]])
