"""Action scripts: a script run on nodes of a running cluster, as a member of its tenant.

`request.py` says what may be asked, `drive.py` runs it and finds out how it ended, `decide.py` has
the decisions on the way as pure functions, and `printing.py` shows what nodes print.
"""
