"""A gateway that leads members to a web server, which is told where it is and not who asks."""

from __future__ import annotations

import os

TENANT = os.environ["MOLECULE_TENANT"]


def test_a_member_is_led_to_the_node(ask):
    status, asked = ask("stripped/page?x=1")
    assert (status, asked["path"]) == (200, "/page?x=1")
    status, asked = ask("kept/page")
    assert (status, asked["path"]) == (200, f"/{TENANT}/lab/web-1/kept/page")


def test_nobody_else_is(ask):
    assert ask("stripped/", user=None)[0] == 401
    assert ask("stripped/", tenant="other")[0] == 403
    assert ask("kept/", user="bob")[0] == 403
    assert ask("stripped/", user="bob")[0] == 200
    assert ask("later/")[0] == 403
    assert ask("nothing/")[0] == 404


def test_a_service_is_told_where_it_is_and_not_who_asks(ask):
    _, asked = ask("stripped/")
    assert asked["headers"]["x-forwarded-context"] == f"/{TENANT}/lab/web-1/stripped"
    assert not {"cookie", "authorization"} & asked["headers"].keys()
    _, asked = ask("kept/")
    assert not {"cookie", "authorization", "x-forwarded-context"} & asked["headers"].keys()


def test_it_leads_from_no_network_to_another_and_has_no_privileges(gateway, machine):
    limits = gateway["HostConfig"]
    assert (limits["CapDrop"], limits["ReadonlyRootfs"]) == (["ALL"], True)
    assert limits["Sysctls"] == {"net.ipv4.ip_forward": "0"}
    files = machine.check_output(
        f"docker exec epic-{TENANT}-gw stat -c %a:%U /var/lib/gateway/tls.pem"
    )
    assert files == "600:gateway"
