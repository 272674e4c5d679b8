"""Three people work on one thing, each in a cluster of their own: what examples/pipeline shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import life_support
import pytest
from life_support import Site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.docker

PREDICTED = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
kept = spark.read.parquet("/tenant/predictions/garden")
print("kept", kept.count(), "right", kept.where("species = prediction").count())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose own tenant has the place of the example's."""
    with life_support.site(tmp_path_factory.mktemp("pipeline")) as made:
        shutil.copytree(EXAMPLES, made.folder / "examples")
        for path in (made.folder / "examples/pipeline").glob("*.yml"):
            text = path.read_text(encoding="utf-8")
            named = re.sub(r"(?m)^(name|tenant): garden$", rf"\1: {made.tenant}", text)
            path.write_text(named, encoding="utf-8")
        yield made


def accuracy(output: str) -> float:
    found = re.search(r"^accuracy: ([\d.]+)$", output, re.MULTILINE)
    assert found, output
    return float(found[1])


def test_tables_a_model_and_predictions_go_from_one_cluster_to_the_next(site: Site) -> None:
    team, prepare, train, score = (
        str(site.folder / "examples/pipeline" / f"{name}.yml")
        for name in ("team", "prepare", "train", "score")
    )
    site.run("tenant", "apply", team)

    site.run("launch", prepare)
    assert "image    wrote  150 read  150" in site.run("run", prepare).out
    site.run("destroy", "tables", "--yes")

    site.run("launch", train)
    assert accuracy(site.run("run", train).out) > 0.7

    site.run("schedule", "add", score)
    assert accuracy(site.run("schedule", "run-now", "score").out) > 0.7
    [ran] = site.json("schedule", "show", "score")["runs"]
    assert (ran["state"], ran["rc"]) == ("done", 0)
    assert [cluster["name"] for cluster in site.json("list")] == ["models"]

    predicted = site.folder / "predicted.py"
    predicted.write_text(PREDICTED, encoding="utf-8")
    said = site.run("submit", "models", "--as", "bob", str(predicted)).out
    found = re.search(r"kept (\d+) right (\d+)", said)
    assert found, said
    rows, right = int(found[1]), int(found[2])
    assert rows == 30
    assert right > 0.7 * rows
