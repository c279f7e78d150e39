"""What stands behind the contenders in the registry's place, where that would be the ceiling."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.bench.ground import fill_in
from tests.e2e.programs import Program, accepts, binary, free_port

TARGET = "/v2/team/app/manifests/v1"
# An image's manifest with five layers is about this long.
TARGET_BYTES = 1_000
BLOB = f"/v2/team/app/blobs/sha256:{'b' * 64}"
BLOB_BYTES = 512_000_000
# For what is pulled again and again in the background.
LAYER = f"/v2/team/app/blobs/sha256:{'a' * 64}"
LAYER_BYTES = 32_000_000
UPLOAD = f"/v2/team/app/blobs/uploads/0c8d2d0e-6f0b-4c0f-8d0a-0c5c2a4f3b1e?digest=sha256:{'b' * 64}"


def nginx(room: Path, template: str, **places: object) -> list[str]:
    """The words that start nginx with a configuration of ``peers/``."""
    configuration = fill_in(room, template, **places)
    if os.geteuid() == 0:
        # Its workers would become www-data, which may not look into a temporary folder.
        configuration.write_text("user root;\n" + configuration.read_text())
    return [binary("nginx"), "-p", str(room), "-c", str(configuration)]


def blob_file(memory: Path) -> Path:
    """Where the blob stands in the folder of an upstream."""
    return memory / "root" / BLOB.lstrip("/")


def write_blobs(memory: Path) -> None:
    """The large files, which an upstream of this folder serves."""
    _write(blob_file(memory), BLOB_BYTES)
    _write(memory / "root" / LAYER.lstrip("/"), LAYER_BYTES)


class Upstream:
    """nginx with static files: a manifest, and what else stands in the folder ``memory``."""

    def __init__(self, folder: Path, memory: Path | None = None) -> None:
        room = folder / "upstream"
        room.mkdir()
        root = (memory or room) / "root"
        _write(root / TARGET.lstrip("/"), TARGET_BYTES)
        self.port = free_port()
        words = nginx(room, "upstream.conf", PORT=self.port, ROOT=root)
        self._program = Program(words, room / "log", room)
        self._program.wait_until("nginx to listen", lambda: accepts(self.port))

    def stop(self) -> None:
        self._program.stop()


class Sink:
    """Takes whole uploads of a blob's length; costs nearly nothing (``tests.bench.sink``).

    nginx would answer a PUT before it has its body, or write the body to a file.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        sink = Path(__file__).with_name("sink.py")
        words = [sys.executable, str(sink), str(self.port), str(BLOB_BYTES)]
        self._program = Program(words, folder / "sink.log", folder)
        self._program.wait_until("the sink to listen", lambda: accepts(self.port))

    def stop(self) -> None:
        self._program.stop()


def _write(file: Path, octets: int) -> None:
    # Real octets: the holes of a sparse file are read at no cost.
    piece = os.urandom(1_000)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        for _ in range(octets // 1_000_000):
            out.write(piece * 1_000)
        out.write((piece * 1_000)[: octets % 1_000_000])
