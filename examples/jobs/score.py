"""Applies a model that train.py saved, from this or another cluster of the tenant.

epic-run submit sandbox --py-files examples/jobs/flowers.py examples/jobs/score.py --model flowers
"""

import argparse

import flowers
from pyspark.ml import PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import SparkSession

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="flowers", help="the model's name")
parser.add_argument("--data", default=flowers.DATA)
parser.add_argument("--format", choices=flowers.FORMATS, default="avro", help="which part of it")
parser.add_argument("--save", metavar="FOLDER", help="keep what it predicts, as parquet")
options = parser.parse_args()

spark = SparkSession.builder.appName(f"score {options.model}").getOrCreate()
model = PipelineModel.load(f"{flowers.MODELS}/{options.model}")
predicted = model.transform(flowers.read(spark, options.data, [options.format])).cache()
evaluator = MulticlassClassificationEvaluator(labelCol="species", metricName="accuracy")
print(f"rows: {predicted.count()}")
print(f"accuracy: {evaluator.evaluate(predicted):.3f}")
if options.save:
    kept = predicted.select("id", "species", "prediction")
    kept.write.mode("overwrite").parquet(options.save)
    print(f"predictions: {options.save}")
spark.stop()
