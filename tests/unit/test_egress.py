"""What a tenant may reach: from its document to the firewall's wishes."""

from __future__ import annotations

import pytest

from epic_runner.spec.destinations import Destination, parse_destination
from epic_runner.spec.models import Tenant


@pytest.mark.parametrize(
    ("text", "to", "port"),
    [
        ("10.1.0.0/16", "10.1.0.0/16", 0),
        ("10.1.2.3", "10.1.2.3", 0),
        ("10.1.0.0/16:8020", "10.1.0.0/16", 8020),
        ("NN1.Example.com:8020", "nn1.example.com", 8020),
        ("nexus", "nexus", 0),
        ("0.0.0.0/0", "0.0.0.0/0", 0),
    ],
)
def test_a_destination_is_a_network_or_a_name_with_a_port_or_without(
    text: str, to: str, port: int
) -> None:
    assert parse_destination(text) == Destination(to, port)


def test_a_tenant_that_says_nothing_reaches_packages_and_its_datataps() -> None:
    assert Tenant(name="a").egress.allow == ("packages", "datataps")
    assert Tenant.model_validate({"name": "a", "egress": "none"}).egress.allow == ()


def test_a_stored_document_means_what_was_written() -> None:
    tenant = Tenant.model_validate({"name": "a", "egress": {"allow": ["nn1:8020"]}})
    assert Tenant.model_validate(tenant.model_dump(mode="json")) == tenant
