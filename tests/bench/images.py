"""Whole images, pushed and pulled by skopeo."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from regguard.demo.image import random_image
from tests.bench.contenders import Contender, Direct
from tests.bench.ground import PASSWORD, PUSHER
from tests.bench.load import Spoiled
from tests.e2e.programs import binary

# Seconds; a copy takes one or two, and with bcrypt-12 for each of 170 requests a minute.
_PATIENCE = 120.0
_TAG = "v1"
_numbers = itertools.count()


class Copies:
    """Pushes and pulls of images with layers of these sizes.

    ``folder`` has the files on skopeo's side, ``storage`` the registry's.
    """

    def __init__(self, folder: Path, storage: Path, sizes: Sequence[int]) -> None:
        self._folder, self._storage, self._sizes = folder, storage, sizes

    def measure(self, contender: Contender) -> tuple[float, float]:
        """Seconds of a push into a new repository, and of the pull of it."""
        remote = f"docker://127.0.0.1:{contender.port}/bench/number-{next(_numbers)}:{_TAG}"
        try:
            with tempfile.TemporaryDirectory(dir=self._folder) as room:
                here, back = Path(room, "here"), Path(room, "back")
                # Another image each time: skopeo remembers (for root at a place of its own
                # choice) which repository has a blob, and would mount it from there.
                image = random_image(self._sizes)
                image.write_layout(here, _TAG)
                pushed = self._copy(contender, "dest", f"oci:{here}:{_TAG}", remote)
                pulled = self._copy(contender, "src", remote, f"oci:{back}:{_TAG}")
                if _blobs(here) != _blobs(back):
                    raise Spoiled(f"{contender.name}, skopeo: the image came back otherwise")
        finally:
            shutil.rmtree(self._storage, ignore_errors=True)
        return pushed, pulled

    def _copy(self, contender: Contender, side: str, source: str, destination: str) -> float:
        login = [] if isinstance(contender, Direct) else [f"--{side}-creds={PUSHER}:{PASSWORD}"]
        home = tempfile.mkdtemp(dir=self._folder)
        began = time.perf_counter()
        try:
            subprocess.run(
                [
                    *(binary("skopeo"), "--insecure-policy", "copy", "--quiet"),
                    *(*login, f"--{side}-tls-verify=false", source, destination),
                ],
                env={**os.environ, "HOME": home, "XDG_DATA_HOME": home, "XDG_RUNTIME_DIR": home},
                timeout=_PATIENCE,
                capture_output=True,
                text=True,
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise Spoiled(f"{contender.name}: {error}") from None
        except subprocess.CalledProcessError as error:
            raise Spoiled(f"{contender.name}, skopeo: {error.stderr}") from None
        finally:
            took = time.perf_counter() - began
            shutil.rmtree(home, ignore_errors=True)
        return took


def _blobs(layout: Path) -> dict[str, int]:
    """Digests, which skopeo has checked, and lengths."""
    return {blob.name: blob.stat().st_size for blob in (layout / "blobs" / "sha256").iterdir()}
