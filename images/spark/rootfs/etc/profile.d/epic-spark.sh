export SPARK_HOME=/opt/spark SPARK_CONF_DIR=/etc/spark/conf PYSPARK_PYTHON=/opt/venv/bin/python
PATH=/opt/venv/bin:/opt/spark/bin:$PATH
