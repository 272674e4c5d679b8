"""Estimates Pi on the cluster's workers, from random points in a square.

epic-run submit sandbox examples/jobs/pi.py [PARTITIONS]
"""

import random
import sys

from pyspark.sql import SparkSession

POINTS = 200_000


def inside(partition):
    """Return how many of POINTS random points of the unit square are inside the circle."""
    chance = random.Random(partition)
    return sum(chance.random() ** 2 + chance.random() ** 2 < 1 for _ in range(POINTS))


partitions = int(sys.argv[1]) if len(sys.argv) > 1 else 4
spark = SparkSession.builder.appName("pi").getOrCreate()
hits = spark.sparkContext.parallelize(range(partitions), partitions).map(inside).sum()
print(f"Pi is roughly {4 * hits / (partitions * POINTS):.4f}")
spark.stop()
