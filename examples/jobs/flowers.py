"""What the example jobs share: where the flowers' data is, and how it is read.

It goes along with a job: epic-run submit lab --py-files examples/jobs/flowers.py ...
"""

from pyspark.sql import functions

DATA = "/tenant/examples/flowers"
MODELS = "/tenant/models"
SCHEMA = "id INT, petal_length DOUBLE, petal_width DOUBLE, species INT"
FORMATS = ("json", "csv", "parquet", "orc", "avro")


def reader(spark, form):
    """Return a reader of one of FORMATS; text formats are told what their columns are."""
    found = spark.read.format(form)
    if form == "csv":
        found = found.option("header", "true")
    return found.schema(SCHEMA) if form in ("csv", "json") else found


def measures(spark, data, forms):
    """Return the flowers' measures from the files of some formats, each of which holds a part."""
    first, *others = [reader(spark, form).load(f"{data}/{form}") for form in forms]
    for other in others:
        first = first.unionByName(other)
    return first


def brightness(spark, data):
    """Return the brightness of each flower's picture, 0 to 255, by the number in its name."""
    mean = functions.udf(lambda data: sum(data) / len(data), "double")
    pictures = spark.read.format("image").option("dropInvalid", "true").load(f"{data}/images")
    return pictures.select(
        functions.regexp_extract("image.origin", r"(\d+)\.png$", 1).cast("int").alias("id"),
        mean("image.data").alias("brightness"),
    )


def read(spark, data=DATA, forms=FORMATS):
    """Return measures and brightness of the flowers whose measures are in these formats."""
    return measures(spark, data, forms).join(brightness(spark, data), "id")
