"""App images: what goes into them, how they are built, and what is known of built ones.

An image is a folder of `images/` with a Dockerfile and an `app.yml`. Its *lock* is a hash over
everything that decides its content: the folder's files, the certificate authorities of the site and
its parent's lock. A built image carries its lock as a label, so that a build which would change
nothing is not started.
"""

from epic_runner.images.builder import (
    BuildEngine,
    BuildFailed,
    BuildLine,
    BuildOptions,
    BuiltImage,
    ImageFacts,
    build,
    choose,
)
from epic_runner.images.state import Freshness, ImageState, package_counts, read_sbom, states

__all__ = [
    "BuildEngine",
    "BuildFailed",
    "BuildLine",
    "BuildOptions",
    "BuiltImage",
    "Freshness",
    "ImageFacts",
    "ImageState",
    "build",
    "choose",
    "package_counts",
    "read_sbom",
    "states",
]
