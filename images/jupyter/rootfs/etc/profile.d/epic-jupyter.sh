export RETICULATE_PYTHON=/opt/venv/bin/python
