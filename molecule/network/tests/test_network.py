"""One network that two managers were asked to make at once."""

from __future__ import annotations

import json
import os

import pytest


@pytest.fixture(scope="module")
def network(manager):
    [found] = json.loads(manager("host-1").check_output("docker network inspect epic_molecule"))
    return found


def test_there_is_one_on_all_managers(manager, network):
    listing = "docker network ls -q --no-trunc --filter name=epic_molecule"
    for host in ("host-1", "host-2"):
        assert manager(host).check_output(listing) == network["Id"]


def test_it_is_for_containers_of_the_tenant_alone(network):
    assert (network["Driver"], network["Scope"]) == ("overlay", "swarm")
    assert network["Internal"]
    assert network["Attachable"]
    assert network["Labels"] == {"epic.tenant": os.environ["MOLECULE_TENANT"]}


def test_it_has_the_addresses_and_the_packets_that_were_wanted(network):
    [addresses] = network["IPAM"]["Config"]
    assert (addresses["Subnet"], addresses["IPRange"]) == ("10.99.0.0/21", "10.99.4.0/22")
    assert network["Options"]["com.docker.network.driver.mtu"] == "1380"
