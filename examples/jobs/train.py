"""Learns to tell flowers apart, and keeps the model where every cluster of the tenant finds it.

Reads what formats.py wrote, divides it into a training and a test set, fits a pipeline with a
classifier, prints its accuracy on the test set, and saves it as /tenant/models/NAME.

epic-run submit lab --py-files examples/jobs/flowers.py examples/jobs/train.py --model flowers
"""

import argparse

import flowers
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression, RandomForestClassifier
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import SparkSession

FEATURES = ["petal_length", "petal_width", "brightness"]
CLASSIFIERS = {
    "logistic": lambda: LogisticRegression(labelCol="species", maxIter=10),
    "forest": lambda: RandomForestClassifier(labelCol="species", numTrees=10),
}

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="flowers", help="the model's name")
parser.add_argument("--data", default=flowers.DATA)
parser.add_argument("--classifier", choices=CLASSIFIERS, default="logistic")
options = parser.parse_args()

spark = SparkSession.builder.appName(f"train {options.model}").getOrCreate()
# Small data in as many parts as there are cores: more would only be more tasks.
data = flowers.read(spark, options.data).coalesce(spark.sparkContext.defaultParallelism).cache()
training, test = data.randomSplit([0.8, 0.2], seed=1)
assembler = VectorAssembler(inputCols=FEATURES, outputCol="features")
model = Pipeline(stages=[assembler, CLASSIFIERS[options.classifier]()]).fit(training)
evaluator = MulticlassClassificationEvaluator(labelCol="species", metricName="accuracy")
accuracy = evaluator.evaluate(model.transform(test))
model.write().overwrite().save(f"{flowers.MODELS}/{options.model}")
print(f"training rows: {training.count()}, test rows: {test.count()}")
print(f"accuracy: {accuracy:.3f}")
print(f"model: {flowers.MODELS}/{options.model}")
spark.stop()
