# ruff: noqa: INP001, S101 - a program of the image, no part of a package
"""Does once what most jobs do, while the image is built: the classes go into the jobs' archive."""

from __future__ import annotations

import sys

import pandas as pd
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import StringIndexer, VectorAssembler
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

folder = sys.argv[1]
spark = SparkSession.builder.getOrCreate()


@f.pandas_udf("double")
def half(values: pd.Series) -> pd.Series:
    """Go through Arrow to Python and back."""
    return values / 2


rows = spark.range(1000).select(
    "id",
    f.expr("id % 7").alias("kind"),
    f.expr("cast(id as double)").alias("x"),
    f.expr("concat('n', id % 2)").alias("label"),
)
for form in ("parquet", "json", "csv", "orc"):
    rows.write.format(form).option("header", "true").save(f"{folder}/{form}")
    read = spark.read.format(form).option("header", "true").option("inferSchema", "true")
    assert read.load(f"{folder}/{form}").count() == rows.count()
read = spark.read.parquet(f"{folder}/parquet")
kinds = read.groupBy("kind").agg(f.count("*").alias("n"), f.avg("x"), f.max("label"))
joined = read.join(kinds, "kind").withColumn("half", half("x")).orderBy(f.desc("id"))
joined.createOrReplaceTempView("joined")
spark.sql("select kind, count(distinct label) from joined where half > 1 group by kind").show()
assert len(joined.limit(5).toPandas()) == len(joined.take(5))
assert (
    spark.sparkContext.parallelize(range(10), 2)
    .map(lambda x: (x % 2, x))
    .reduceByKey(lambda x, y: x + y)
    .collect()
)
train, test = read.randomSplit([0.8, 0.2], seed=1)
model = Pipeline(
    stages=[
        StringIndexer(inputCol="label", outputCol="wanted"),
        VectorAssembler(inputCols=["x", "kind"], outputCol="features"),
        LogisticRegression(labelCol="wanted", maxIter=2),
    ]
).fit(train)
model.write().overwrite().save(f"{folder}/model")
assert model.transform(test).count() == test.count()
spark.stop()
