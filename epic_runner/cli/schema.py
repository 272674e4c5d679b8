"""`epic-run schema`: the JSON Schema of the YAML, for editors."""

from __future__ import annotations

import click

from epic_runner.spec.models import MODELS
from epic_runner.spec.schema import schema_text


@click.command()
@click.argument("kind", required=False, type=click.Choice(list(MODELS), case_sensitive=False))
def schema(kind: str | None) -> None:
    """Print the JSON Schema of the YAML, for editors.

    It is that of all documents, or of one KIND. Editors that know YAML complete and check files
    by it. Save it, and name it in the first line of a file:

    \b
      epic-run schema > epic-runner.schema.json
      # yaml-language-server: $schema=epic-runner.schema.json

    \b
    Examples:
      epic-run schema
      epic-run schema Template
    """
    click.echo(schema_text(kind), nl=False)
