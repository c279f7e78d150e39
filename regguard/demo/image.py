"""An image of random bytes: small, valid, and different every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(content: bytes) -> str:
    """The content's OCI digest, ``sha256:...``."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Image:
    """The parts of an image, as they travel."""

    config: bytes
    layers: tuple[bytes, ...]
    manifest: bytes

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """The layers, then the config."""
        return (*self.layers, self.config)

    def write_layout(self, folder: Path, tag: str) -> None:
        """Write the image as an OCI image layout, which skopeo reads as ``oci:folder:tag``."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for content in (*self.blobs, self.manifest):
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        entry = _descriptor(MANIFEST_TYPE, self.manifest)
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
        (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def random_image(sizes: Sequence[int] = (1_000, 200_000, 3_000_000)) -> Image:
    """An image with one layer per size (bytes): a tar archive that holds one random file."""
    archives = [_archive(f"layer-{number}", os.urandom(size)) for number, size in enumerate(sizes)]
    # Random bytes do not shrink; level 0 only wraps them.
    layers = tuple(gzip.compress(archive, compresslevel=0, mtime=0) for archive in archives)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(archive) for archive in archives]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_descriptor(LAYER_TYPE, layer) for layer in layers],
        }
    )
    return Image(config, layers, manifest)


def _archive(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(content), "digest": digest(content)}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
