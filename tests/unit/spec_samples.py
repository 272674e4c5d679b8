"""A catalogue and a cluster for the tests of the spec, apart from what the images really are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from epic_runner.catalog import Catalog, load_catalog
from epic_runner.errors import InputErrors
from epic_runner.spec.load import Documents, load_documents

APPS = {
    "base": "{kind: App, name: base, version: '12', revision: 1, label: B, summary: S, image: e/b}",
    "spark": """
kind: App
name: spark
version: "3.5.9"
revision: 2
label: Spark
summary: Clusters.
image: e/spark
parent: base
roles:
  master: {min: 1, max: 1, services: [spark-master], memory: 1g}
  worker: {min: 1, services: [spark-worker], memory: 1g}
  gateway: {}
services:
  spark-master:
    role: spark
    summary: The master.
    endpoints: [{name: spark-master, label: Spark master, port: 8080}]
  spark-worker: {role: spark, summary: A worker.}
""",
    "jupyter": """
kind: App
name: jupyter
version: "4.4"
revision: 1
label: JupyterLab
summary: Notebooks.
image: e/jupyter
parent: spark
services:
  jupyter:
    role: jupyter
    summary: Notebooks.
    memory: 1g
    memory_beside: {spark-worker: 256m}
    endpoints: [{name: jupyter, label: JupyterLab, port: 8888, path: /lab, token: true}]
""",
    "rstudio": """
kind: App
name: rstudio
version: "2024"
revision: 1
label: RStudio
summary: RStudio.
image: e/rstudio
parent: spark
services:
  rstudio: {role: rstudio, summary: RStudio.}
""",
}

LAB = """\
kind: Tenant
name: analytics
quota: {cores: 8, memory: 16g, nodes: 6}
members:
  - {user: ada, role: admin}
---
kind: Flavor
name: tiny
cores: 1
memory: 512m
---
kind: Template
name: lab
tenant: analytics
app: spark
roles:
  master: {flavor: medium, services: [jupyter]}
  worker: {count: 2}
"""


def write_apps(folder: Path, **apps: str) -> Path:
    """Write app.yml files and return the folder of images."""
    for name, text in apps.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "app.yml").write_text(text)
    return folder


def sample_catalog(folder: Path) -> Catalog:
    return load_catalog(write_apps(folder, **APPS))


def lines_of(error: InputErrors, folder: Path | None = None) -> list[str]:
    """Return the mistakes as `WHERE: MESSAGE | HINT`, file names without `folder`."""
    lines = [
        f"{item.where}: {item.message}" + (f" | {item.hint}" if item.hint else "")
        for item in error.mistakes
    ]
    return [line.replace(f"{folder}/", "") for line in lines] if folder else lines


def load_text(folder: Path, text: str | bytes, *sets: str, **options: Any) -> Documents:
    """Write `text` to lab.yml in `folder` and load it."""
    path = folder / "lab.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_documents([path], sets, **options)


def mistakes_in(folder: Path, text: str | bytes, *sets: str, **options: Any) -> list[str]:
    """Return the mistakes of `text`; there are none if it loads."""
    try:
        load_text(folder, text, *sets, **options)
    except InputErrors as error:
        return lines_of(error, folder)
    return []
