"""Runs a notebook, prints what its cells print, and keeps it with its outputs, however it ends.

notebook.py NOTEBOOK RESULT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError


def show(text: str, stream: TextIO) -> None:
    """Print a text at once: whoever follows the job sees it now."""
    stream.write(text)
    stream.flush()


class Printing(NotebookClient):
    """Executes a notebook, and prints what its cells print when they do."""

    def output(self, outs: Any, msg: Any, display_id: Any, cell_index: Any) -> Any:
        """Print a piece of output, and keep it in the notebook."""
        content = msg["content"]
        if msg["msg_type"] == "stream":
            show(content["text"], sys.stderr if content["name"] == "stderr" else sys.stdout)
        elif msg["msg_type"] in ("execute_result", "display_data"):
            show(content["data"].get("text/plain", "") + "\n", sys.stdout)
        return super().output(outs, msg, display_id, cell_index)


def main(source: Path, result: Path) -> int:
    """Run the notebook; return the exit code."""
    notebook = nbformat.read(source, as_version=4)
    resources = {"metadata": {"path": str(source.parent)}}
    try:
        Printing(notebook, resources=resources).execute()
    except (CellExecutionError, DeadKernelError) as problem:
        show(f"{problem}\n", sys.stderr)
        return 1
    finally:
        nbformat.write(notebook, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
