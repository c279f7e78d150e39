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
    """Pushes and pulls of one image, whose files stand in ``folder``."""

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        self._folder = folder
        self._layout = Path(tempfile.mkdtemp(prefix="image-", dir=folder))
        image = random_image(sizes)
        image.write_layout(self._layout, _TAG)
        self._octets = sum(map(len, image.blobs))

    def measure(self, contender: Contender) -> tuple[float, float]:
        """Seconds of a push into a new repository, and of the pull of it."""
        remote = f"docker://127.0.0.1:{contender.port}/bench/number-{next(_numbers)}:{_TAG}"
        with tempfile.TemporaryDirectory(dir=self._folder) as out:
            pushed = self._copy(contender, "dest", f"oci:{self._layout}:{_TAG}", remote)
            pulled = self._copy(contender, "src", remote, f"oci:{out}:{_TAG}")
            blobs = (Path(out) / "blobs" / "sha256").iterdir()
            # The manifest is the one that is more.
            if sum(blob.stat().st_size for blob in blobs) <= self._octets:
                raise Spoiled(f"{contender.name}, skopeo: the image is not whole")
        return pushed, pulled

    def _copy(self, contender: Contender, side: str, source: str, destination: str) -> float:
        login = [] if isinstance(contender, Direct) else [f"--{side}-creds={PUSHER}:{PASSWORD}"]
        # A home of its own: skopeo remembers which repository has a blob, and would mount it.
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
