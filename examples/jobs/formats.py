"""Writes json, csv, parquet, orc, avro and image files to the tenant's storage, and reads them.

The data is made up: 150 flowers of three species, each format with a fifth of them, and a picture
of each. train.py learns from it.

epic-run submit sandbox --py-files examples/jobs/flowers.py examples/jobs/formats.py
"""

import random
import struct
import sys
import zlib
from pathlib import Path

import flowers
from pyspark.sql import SparkSession

COUNT = 150
SIDE = 4  # pixels of a picture
SPECIES = ((1.4, 0.3, 60), (4.3, 1.3, 120), (5.5, 2.0, 190))  # length, width, brightness


def png(pixels):
    """Return a square picture in grey, as a PNG file."""
    rows = b"".join(b"\0" + bytes(row) for row in pixels)

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", len(pixels), len(pixels), 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def picture(chance, brightness):
    """Return a picture of about this brightness, as a PNG file."""
    return png(
        [
            [min(255, max(0, int(chance.gauss(brightness, 25)))) for _ in range(SIDE)]
            for _ in range(SIDE)
        ]
    )


data = Path(sys.argv[1] if len(sys.argv) > 1 else flowers.DATA)
chance = random.Random(3)
spark = SparkSession.builder.appName("formats").getOrCreate()

images = data / "images"
images.mkdir(parents=True, exist_ok=True)
rows = []
for number in range(COUNT):
    species = number % len(SPECIES)
    length, width, brightness = SPECIES[species]
    rows.append((number, chance.gauss(length, 0.8), chance.gauss(width, 0.3), species))
    (images / f"{number}.png").write_bytes(picture(chance, chance.gauss(brightness, 40)))

wrong = 0
for number, form in enumerate(flowers.FORMATS):
    part = rows[number :: len(flowers.FORMATS)]
    writer = spark.createDataFrame(part, flowers.SCHEMA).coalesce(1).write.mode("overwrite")
    if form == "csv":
        writer = writer.option("header", "true")
    writer.format(form).save(f"{data}/{form}")
    found = flowers.reader(spark, form).load(f"{data}/{form}").count()
    wrong += found != len(part)
    print(f"{form:8} wrote {len(part):4} read {found:4}")
found = flowers.brightness(spark, data).count()
wrong += found != COUNT
print(f"{'image':8} wrote {COUNT:4} read {found:4}")
spark.stop()
if wrong:
    sys.exit(f"{wrong} of the formats did not give back what was written.")
