"""Files to documents: every mistake, with its place and what to write instead."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_samples import LAB, lines_of, load_text, mistakes_in, sample_catalog

from epic_runner.catalog import Catalog
from epic_runner.errors import InputErrors
from epic_runner.spec import overrides
from epic_runner.spec.load import load_documents
from epic_runner.spec.models import BUILTIN_FLAVORS, MODELS, SYSTEM_USERS, Flavor, Member, Tenant
from epic_runner.spec.reader import Problem, Source, read


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return sample_catalog(tmp_path_factory.mktemp("images"))


def test_documents_are_found_by_kind_and_name(tmp_path: Path) -> None:
    documents = load_text(tmp_path, LAB)
    assert documents.flavors["tiny"] == Flavor(name="tiny", cores=1, memory=512 * 2**20)
    assert documents.tenants["analytics"].quota.memory == 16 * 2**30
    assert documents.tenants["analytics"].members[0].role == "admin"
    template = documents.templates["lab"]
    assert (template.app, template.tenant) == ("spark", "analytics")
    assert template.roles["worker"].count == 2
    assert template.roles["master"].services == ("jupyter",)
    source = documents.sources["Template", "lab"]
    assert source.document.place(("roles", "worker")).where == f"{tmp_path}/lab.yml:18"


def test_what_is_written_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    flavor = load_text(tmp_path, LAB).flavors["tiny"]
    with pytest.raises(ValueError, match="frozen"):
        flavor.cores = 2  # type: ignore[misc]


# Each text with its mistakes as WHERE: MESSAGE | HINT.
GOLDEN = {
    "a key that is misspelt": (
        "kind: Flavor\nname: big\ncores: 2\nmemry: 4g\n",
        ['lab.yml:4: memry is not a known key. | Did you mean "memory"?'],
    ),
    "a key that nothing is like": (
        "kind: Flavor\nname: big\ncores: 2\nmemory: 4g\nzzz: 1\n",
        ["lab.yml:5: zzz is not a known key. | Known keys are kind, name, cores, memory, disk."],
    ),
    "a size where a flavor is wanted": (
        "kind: Template\nname: lab\napp: spark\nroles:\n  worker:\n    memry: 2g\n",
        [
            (
                "lab.yml:6: roles.worker.memry is not a known key. | "
                "The memory of a node comes from its flavor."
            )
        ],
    ),
    "a key with odd letters": (
        'kind: Flavor\nname: big\ncores: 2\nmemory: 4g\n"a\\nb c": 1\n',
        [
            (
                'lab.yml:5: "a b c" is not a known key. | '
                "Known keys are kind, name, cores, memory, disk."
            )
        ],
    ),
    "a key that is missing": (
        "kind: Flavor\nname: big\nmemory: 4g\n",
        ["lab.yml:1: cores is missing. | cores is: whole CPU cores of a node."],
    ),
    "a key that is missing deep inside": (
        "kind: Tenant\nname: a\nmembers:\n  - role: admin\n",
        [
            (
                "lab.yml:4: members[0].user is missing. | "
                "user is: the user's name, the same on every node."
            )
        ],
    ),
    "no kind": (
        "name: a\n",
        [
            (
                "lab.yml:1: The document has no kind. | "
                "Add kind: and one of Flavor, Tenant, Template, Job, App."
            )
        ],
    ),
    "a misspelt kind key": (
        "name: a\nkid: Flavor\n",
        ['lab.yml:2: kid is not a known key. | Did you mean "kind"?'],
    ),
    "a kind in small letters": (
        "kind: template\n",
        ['lab.yml:1: "template" is not a known kind. | Did you mean "Template"?'],
    ),
    "a kind that is misspelt": (
        "kind: Tennant\n",
        ['lab.yml:1: "Tennant" is not a known kind. | Did you mean "Tenant"?'],
    ),
    "a kind that is no word": (
        "kind: [1]\n",
        ['lab.yml:1: "[1]" is not a known kind. | There is: Flavor, Tenant, Template, Job, App.'],
    ),
    "kinds of a later version": (
        "kind: DataTap\nname: sales\n",
        ["lab.yml:1: The kind DataTap is not supported by this version yet."],
    ),
    "keys of a later version": (
        (
            "kind: Tenant\nname: a\ngroups: []\n"
            "---\nkind: Template\nname: a\napp: spark\ndatataps: []\n"
            "locked: []\n"
        ),
        [
            "lab.yml:3: groups is not supported by this version yet.",
            "lab.yml:8: datataps is not supported by this version yet.",
            "lab.yml:9: locked is not supported by this version yet.",
        ],
    ),
    "lifetimes that are none": (
        (
            "kind: Template\nname: a\napp: spark\nlifetime:\n  max_idle: 2\n  max_age: 400d\n"
            "  action: kill\n  idle: 2h\n---\n"
            "kind: Template\nname: b\napp: spark\nlifetime: {max_idle: 10m, warn: 15m}\n"
        ),
        [
            "lab.yml:5: lifetime.max_idle must be a duration such as 90s, 15m, 2h or 7d.",
            "lab.yml:6: lifetime.max_age is longer than a year (366d).",
            'lab.yml:7: lifetime.action must be stop or destroy, not "kill".',
            'lab.yml:8: lifetime.idle is not a known key. | Did you mean "max_idle"?',
            "lab.yml:13: lifetime.warn must be less than max_idle, which is 10m.",
        ],
    ),
    "what a tenant may not reach, or what says nothing": (
        (
            "kind: Tenant\nname: a\negress:\n  allow:\n    - package\n    - 10.0.0.1/8\n"
            "    - https://x.org/simple\n    - fe80::1\n    - nn1:0\n    - 169.254.169.254\n"
            "    - a_b\n"
        ),
        [
            (
                "lab.yml:5: egress.allow[0] is neither a network nor a name. | "
                'Did you mean "packages"?'
            ),
            (
                "lab.yml:6: egress.allow[1] is an address within a network. | "
                "Write 10.0.0.0/8, or 10.0.0.1."
            ),
            (
                "lab.yml:7: egress.allow[2] must be a name or an address, not a URL. | "
                "Write x.org:443."
            ),
            (
                "lab.yml:8: egress.allow[3] must be an IPv4 address: networks of tenants carry no "
                "IPv6."
            ),
            'lab.yml:9: egress.allow[4] must have a port from 1 to 65535, not "0".',
            (
                "lab.yml:10: egress.allow[5] is of the link-local addresses, which no tenant may "
                "reach."
            ),
            (
                "lab.yml:11: egress.allow[6] must be packages, datataps, a network such as "
                "10.1.0.0/16 or a host's name, the last two with :PORT if not all ports are meant."
            ),
        ],
    ),
    "an egress without a list": (
        "kind: Tenant\nname: a\negress: [packages]\n",
        [
            (
                "lab.yml:3: egress must be none or a mapping with allow, not a list. | "
                "Write {allow: [...]}."
            )
        ],
    ),
    "a document that is no mapping": (
        "- kind: Flavor\n--- text\n",
        [
            (
                "lab.yml:1: The document is a list, but must be a mapping of keys to values. | "
                "Begin it with kind: and one of Flavor, Tenant, Template, Job, App."
            ),
            (
                "lab.yml:2: The document is one value, but must be a mapping of keys to values. | "
                "Begin it with kind: and one of Flavor, Tenant, Template, Job, App."
            ),
        ],
    ),
    "values of wrong types": (
        "kind: Tenant\nname: 12\nquota: [1]\nmembers:\n  - {user: ada, sudo: yes}\n  - bob\n  -\n",
        [
            'lab.yml:2: name must be text, not 12. | Put it in quotes: "12"',
            "lab.yml:3: quota must be a mapping of keys to values, not a list.",
            'lab.yml:5: members[0].sudo must be true or false, not "yes". | Write true.',
            'lab.yml:6: members[1] must be a mapping of keys to values, not "bob".',
            (
                "lab.yml:7: members[2] must be a mapping of keys to values, not nothing. | "
                "Write {} for one without keys."
            ),
        ],
    ),
    "numbers of wrong kinds": (
        (
            'kind: Flavor\nname: big\ncores: "2"\nmemory: 4\ndisk: 1.5t\n'
            "---\nkind: Flavor\nname: other\ncores: 2.5\nmemory: true\n"
            "---\nkind: Flavor\nname: third\ncores: 0\nmemory: 9999999t\n"
            "---\nkind: Tenant\nname: a\nquota: {cores: 10000000, nodes: -1}\n"
        ),
        [
            'lab.yml:3: cores must be a whole number, not "2". | Write it without quotes: 2',
            'lab.yml:4: memory is less than 1 MiB. | Did you mean "4g"?',
            'lab.yml:5: disk must be a size such as 512m, 8g or 1t. | Did you mean "1536g"?',
            "lab.yml:9: cores must be a whole number, not 2.5.",
            "lab.yml:10: memory must be a size such as 512m, 8g or 1t.",
            "lab.yml:14: cores must be at least 1, not 0.",
            "lab.yml:15: memory is larger than 1 EiB (1048576t).",
            "lab.yml:19: quota.cores must be at most 1000000, not 10000000.",
            "lab.yml:19: quota.nodes must be at least 0, not -1.",
        ],
    ),
    "a version that became a number": (
        "kind: App\nname: a\nversion: 3.10\nrevision: 1\nlabel: A\nsummary: A.\nimage: a/b\n",
        ['lab.yml:3: version must be text, not 3.1. | Put it in quotes: "3.10"'],
    ),
    "names": (
        (
            "kind: Flavor\nname: Big_One\ncores: 1\nmemory: 1g\n"
            "---\nkind: Flavor\nname: 1-\ncores: 1\nmemory: 1g\n"
            "---\nkind: Template\nname: x\napp: spark\nroles: {a-role-that-is-too-long: {}}\n"
        ),
        [
            (
                "lab.yml:2: name must be a name of at most 32 lower-case letters, digits and "
                "dashes, "
                'beginning with a letter, not ending in a dash. | Did you mean "big-one"?'
            ),
            (
                "lab.yml:7: name must be a name of at most 32 lower-case letters, digits and "
                "dashes, beginning with a letter, not ending in a dash."
            ),
            (
                "lab.yml:14: roles.a-role-that-is-too-long must be a name of at most 20 lower-case "
                "letters, digits and dashes, beginning with a letter, not ending in a dash."
            ),
        ],
    ),
    "members": (
        (
            "kind: Tenant\nname: a\nmembers:\n  - {user: root}\n  - {user: Ada}\n"
            "  - {user: ada, role: adm}\n  - {user: ada, principal: ada}\n"
        ),
        [
            'lab.yml:4: members[0].user cannot be "root", a user or group of the system.',
            (
                "lab.yml:5: members[1].user must be a Unix user name of at most 32 lower-case "
                "letters, digits, dashes and underscores, beginning with a letter. | "
                'Did you mean "ada"?'
            ),
            (
                'lab.yml:6: members[2].role must be admin or member, not "adm". | '
                'Did you mean "admin"?'
            ),
            "lab.yml:7: members[3].principal must be a Kerberos principal such as ada@EXAMPLE.COM.",
        ],
    ),
    "a member who is there twice": (
        "kind: Tenant\nname: a\nmembers: [{user: ada}, {user: bob}, {user: ada, role: admin}]\n",
        ['lab.yml:3: members holds the user "ada" twice.'],
    ),
    "services": (
        (
            "kind: Template\nname: a\napp: spark\nroles:\n  master: {services: jupyter}\n"
            "  worker: {services: [jupyter, jupyter]}\n"
        ),
        [
            'lab.yml:5: roles.master.services must be a list, not "jupyter". | Write [jupyter].',
            'lab.yml:6: roles.worker.services holds "jupyter" twice.',
        ],
    ),
    "an app that is none": (
        "kind: Template\nname: a\napp: spark 3\n",
        ["lab.yml:3: app must be an app, such as spark or spark@3.5.9."],
    ),
    "two of one name": (
        (
            "kind: Flavor\nname: a\ncores: 1\nmemory: 1g\n---\nkind: Flavor\nname: a\ncores: 2\n"
            "memory: 1g\n---\nkind: Tenant\nname: a\n"
        ),
        ['lab.yml:7: There is a Flavor named "a" already, at lab.yml:2.'],
    ),
    "mistakes in YAML and in what it says": (
        "kind: Flavor\nname: a\nname: b\ncores: x\nmemory: !big 1g\n---\nkind: [\n",
        [
            "lab.yml:3: name is given twice, first on line 2.",
            'lab.yml:4: cores must be a whole number, not "x".',
            'lab.yml:5: The tag "!big" is not allowed. | Write the plain value.',
            (
                "lab.yml:7: A list or mapping in brackets is not closed, or lacks a comma, "
                "before here."
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_mistake_is_told_in_plain_words(name: str, tmp_path: Path) -> None:
    text, expected = GOLDEN[name]
    assert mistakes_in(tmp_path, text) == expected


# What only the catalogue, the flavors and the tenants can tell.
MEANING = {
    "an app that there is not": (
        "kind: Template\nname: a\napp: sprak\nroles: {worker: {flavor: mediun}}\n",
        [
            'lab.yml:3: There is no app "sprak". | Did you mean "spark"?',
            'lab.yml:4: There is no flavor "mediun". | Did you mean "medium"?',
        ],
    ),
    "an app without node roles": (
        "kind: Template\nname: a\napp: jupyter\n---\nkind: Template\nname: b\napp: base\n",
        [
            (
                "lab.yml:3: The app jupyter has no node roles, so it cannot be launched by "
                "itself. | Write app: spark, and services: [jupyter] in a node role."
            ),
            (
                "lab.yml:7: The app base has no node roles, so it cannot be launched by itself. | "
                "There is: spark."
            ),
        ],
    ),
    "a version that the catalogue does not have": (
        "kind: Template\nname: a\napp: spark@3.4.1\n",
        [
            (
                "lab.yml:3: The catalogue has spark 3.5.9, not 3.4.1. | "
                "Write app: spark, or app: spark@3.5.9."
            )
        ],
    ),
    "node roles that the app does not have": (
        "kind: Template\nname: a\napp: spark\nroles:\n  mastr: {flavor: big}\n  zzz: {}\n",
        [
            'lab.yml:5: roles.mastr is not a node role of the app spark. | Did you mean "master"?',
            'lab.yml:5: There is no flavor "big". | There is: small, medium, large.',
            (
                "lab.yml:6: roles.zzz is not a node role of the app spark. | "
                "There is: master, worker, gateway."
            ),
        ],
    ),
    "counts that the app does not allow": (
        "kind: Template\nname: a\napp: spark\nroles:\n  master: {count: 2}\n  worker: {count: 0}\n",
        [
            "lab.yml:5: roles.master.count must be at most 1 in spark, not 2.",
            "lab.yml:6: roles.worker.count must be at least 1 in spark, not 0.",
        ],
    ),
    "services that no image offers": (
        (
            "kind: Template\nname: a\napp: spark\nroles:\n"
            "  master:\n    services:\n      - jupiter\n      - zzz\n"
        ),
        [
            'lab.yml:7: No image for spark offers the service "jupiter". | Did you mean "jupyter"?',
            (
                'lab.yml:8: No image for spark offers the service "zzz". | '
                "There is: spark-worker, jupyter, rstudio."
            ),
        ],
    ),
    "a service that would make more masters than the app has": (
        (
            "kind: Template\nname: a\napp: spark\nroles:\n"
            "  master: {services: [spark-master, spark-worker]}\n"
            "  worker: {services: [jupyter, spark-master]}\n"
        ),
        [
            (
                "lab.yml:6: roles.worker cannot run spark-master: it is what makes a node a "
                "master, of which spark has at most 1. | Leave it out."
            ),
        ],
    ),
    "a service that needs more beside another": (
        (
            "kind: Flavor\nname: tiny\ncores: 1\nmemory: 2g\n"
            "---\nkind: Template\nname: a\napp: spark\nroles:\n"
            "  master: {flavor: tiny, services: [jupyter]}\n"
            "  worker: {flavor: tiny, services: [jupyter]}\n"
        ),
        [
            (
                "lab.yml:11: roles.worker needs at least 2304m of memory (1g for worker, 1280m "
                "for jupyter) in spark, but the flavor tiny has 2g. | "
                "Flavors with enough: medium, large."
            ),
        ],
    ),
    "services that no one image offers together": (
        "kind: Template\nname: a\napp: spark\nroles:\n  master: {services: [jupyter, rstudio]}\n",
        [
            (
                "lab.yml:5: roles.master.services: no one image offers jupyter, rstudio "
                "together. | Ask for some of them in another node role."
            ),
        ],
    ),
    "a flavor that is too small": (
        (
            "kind: Flavor\nname: tiny\ncores: 1\nmemory: 512m\n"
            "---\nkind: Template\nname: a\napp: spark\nroles:\n"
            "  master: {flavor: tiny, services: [jupyter]}\n  worker: {flavor: tiny}\n"
        ),
        [
            (
                "lab.yml:10: roles.master needs at least 2g of memory (1g for master, 1g for "
                "jupyter) in spark, but the flavor tiny has 512m. | "
                "Flavors with enough: small, medium, large."
            ),
            (
                "lab.yml:11: roles.worker needs at least 1g of memory in spark, "
                "but the flavor tiny has 512m. | Flavors with enough: small, medium, large."
            ),
        ],
    ),
    "a cluster that could never fit": (
        LAB + "---\nkind: Template\nname: huge\ntenant: analytics\napp: spark\n"
        "roles: {worker: {count: 9, flavor: large}}\n",
        [
            (
                "lab.yml:20: The cluster needs 37 cores, "
                "but the quota of the tenant analytics is 8. | "
                "Ask for fewer or smaller nodes, or raise quota.cores of the tenant."
            ),
            (
                "lab.yml:20: The cluster needs 74g of memory, "
                "but the quota of the tenant analytics is 16g. | "
                "Ask for fewer or smaller nodes, or raise quota.memory of the tenant."
            ),
            (
                "lab.yml:20: The cluster needs 10 nodes, "
                "but the quota of the tenant analytics is 6. | "
                "Ask for fewer or smaller nodes, or raise quota.nodes of the tenant."
            ),
        ],
    ),
    "mistakes of both sorts": (
        (
            "kind: Template\nname: A\napp: spark@1\nroles:\n  worker: {count: many, flavor: big}\n"
            "  master: {count: 3}\n"
        ),
        [
            (
                "lab.yml:2: name must be a name of at most 32 lower-case letters, digits and "
                "dashes, "
                'beginning with a letter, not ending in a dash. | Did you mean "a"?'
            ),
            (
                "lab.yml:3: The catalogue has spark 3.5.9, not 1. | "
                "Write app: spark, or app: spark@3.5.9."
            ),
            'lab.yml:5: roles.worker.count must be a whole number, not "many".',
            'lab.yml:5: There is no flavor "big". | There is: small, medium, large.',
            "lab.yml:6: roles.master.count must be at most 1 in spark, not 3.",
        ],
    ),
    "an action without a script beside other mistakes": (
        (
            "kind: Template\nname: a\napp: spark\nactions:\n  - {run: 3}\n"
            "  - {run: gone.sh, roles: [wroker]}\n"
            "roles:\n  wrker: {}\n  master: {flavor: huge}\n"
        ),
        [
            'lab.yml:5: actions[0].run must be text, not 3. | Put it in quotes: "3"',
            (
                "lab.yml:6: actions[1].roles: wroker is not a node role of spark. | "
                'Did you mean "worker"?'
            ),
            "lab.yml:6: actions[1].run: There is no file gone.sh.",
            'lab.yml:8: roles.wrker is not a node role of the app spark. | Did you mean "worker"?',
            'lab.yml:9: There is no flavor "huge". | There is: small, medium, large.',
        ],
    ),
    "a missing script where the app is not known": (
        "kind: Template\nname: a\napp: sprk\nactions: [{run: gone.sh}]\n",
        [
            'lab.yml:3: There is no app "sprk". | Did you mean "spark"?',
            "lab.yml:4: actions[0].run: There is no file gone.sh.",
        ],
    ),
    "a quota that is too small for the node roles that are right": (
        (
            "kind: Tenant\nname: t\nquota: {cores: 8}\nmembers: [{user: ada}, {role: admin}]\n"
            "egress: {alow: [packages]}\n"
            "---\nkind: Template\nname: a\ntenant: t\napp: spark\nroles:\n"
            "  wrker: {}\n  gateway: {count: 9}\n"
        ),
        [
            (
                "lab.yml:4: members[1].user is missing. | "
                "user is: the user's name, the same on every node."
            ),
            'lab.yml:5: egress.alow is not a known key. | Did you mean "allow"?',
            (
                "lab.yml:7: The cluster needs at least 9 cores, "
                "but the quota of the tenant t is 8. | "
                "Ask for fewer or smaller nodes, or raise quota.cores of the tenant."
            ),
            'lab.yml:12: roles.wrker is not a node role of the app spark. | Did you mean "worker"?',
        ],
    ),
    "a flavor that is itself wrong is not said to be missing": (
        (
            "kind: Flavor\nname: big\ncores: x\nmemory: 1g\n"
            "---\nkind: Template\nname: a\napp: spark\nroles: {worker: {flavor: big}}\n"
        ),
        ['lab.yml:3: cores must be a whole number, not "x".'],
    ),
}


@pytest.mark.parametrize("name", MEANING)
def test_what_cannot_be_had_is_told_with_what_there_is(
    name: str, tmp_path: Path, catalog: Catalog
) -> None:
    text, expected = MEANING[name]
    found = mistakes_in(tmp_path, text, catalog=catalog, known_flavors={})
    assert [line.replace(f"{tmp_path}/", "") for line in found] == expected


def test_tenants_are_looked_for_only_where_they_can_be_known(
    tmp_path: Path, catalog: Catalog
) -> None:
    text = "kind: Template\nname: a\napp: spark\ntenant: analytica\n"
    tenants = load_text(tmp_path, LAB).tenants
    assert mistakes_in(tmp_path, text, catalog=catalog) == []
    assert mistakes_in(tmp_path, text, catalog=catalog, known_tenants=tenants) == [
        'lab.yml:4: There is no tenant "analytica". | Did you mean "analytics"?'
    ]
    assert mistakes_in(tmp_path, text, catalog=catalog, known_tenants={}) == [
        (
            'lab.yml:4: There is no tenant "analytica". | '
            "Add a document of kind: Tenant, or apply one with `epic-run tenant apply`."
        )
    ]


@pytest.mark.parametrize(
    ("members", "line"), [("", 2), ("members: []\n", 3), ("members: [{role: admin}]\n", None)]
)
def test_a_tenant_without_members_is_refused_before_a_launch_would(
    members: str, line: int | None, tmp_path: Path, catalog: Catalog
) -> None:
    tenant = f"kind: Tenant\nname: t\n{members}"
    template = "kind: Template\nname: a\napp: spark\ntenant: t\n"
    told = (
        "The tenant t has no members, so nobody could own the cluster. | "
        "Add `members: [{user: ada, role: admin}]` to the Tenant document."
    )
    assert mistakes_in(tmp_path, tenant, catalog=catalog) == ([] if line else ANY)
    found = mistakes_in(tmp_path, f"{tenant}---\n{template}", catalog=catalog)
    assert [item for item in found if "no members" in item] == (
        [f"lab.yml:{line}: {told}"] if line else []
    )
    known: dict[str, Any] = {"catalog": catalog, "known_tenants": {"t": Tenant(name="t")}}
    assert mistakes_in(tmp_path, template, **known) == [f"lab.yml:4: {told}"]
    assert mistakes_in(tmp_path, template, **known, tenant="t") == [f"--tenant: {told}"]


def test_the_command_lines_tenant_takes_the_place_of_the_templates(
    tmp_path: Path, catalog: Catalog
) -> None:
    text = "kind: Template\nname: a\napp: spark\ntenant: elsewhere\n"
    tenants = load_text(tmp_path, LAB).tenants
    options: dict[str, Any] = {"catalog": catalog, "known_tenants": tenants}
    assert mistakes_in(tmp_path, text, **options, tenant="analytics") == []
    assert mistakes_in(tmp_path, text, **options, tenant="analytica") == [
        '--tenant: There is no tenant "analytica". | Did you mean "analytics"?'
    ]


def test_the_built_in_flavors_are_right() -> None:
    for name, flavor in BUILTIN_FLAVORS.items():
        again = Flavor.model_validate(flavor.model_dump())
        assert (again, again.name, again.kind) == (flavor, name, "Flavor")


class TestSet:
    def test_a_value_is_written_over_that_of_the_template(self, tmp_path: Path) -> None:
        template = load_text(
            tmp_path,
            LAB,
            "roles.worker.count=5",
            "name=other",
            "roles.master.services=[rstudio, jupyter]",
            "roles.master.services[0]=spark-worker",
            "roles.gateway.count=1",
            "tenant=",
        ).templates["other"]
        assert template.roles["worker"].count == 5
        assert template.roles["master"].services == ("spark-worker", "jupyter")
        assert template.roles["gateway"].count == 1
        assert template.tenant is None

    def test_the_last_of_several_holds(self, tmp_path: Path) -> None:
        documents = load_text(tmp_path, LAB, "roles.worker.count=5", "roles.worker.count=6")
        assert documents.templates["lab"].roles["worker"].count == 6

    def test_its_mistakes_are_named_by_the_option(self, tmp_path: Path, catalog: Catalog) -> None:
        sets = (
            "roles.wroker.count=5",
            "nam=x",
            "roles.worker.count=many",
            "roles.worker.flavor=mediun",
            "roles.master.services[0]=jupiter",
            "roles.master.services[7]=jupyter",
            "name.first=x",
            "roles[0]=x",
            "kind=Tenant",
            "roles.worker",
            "=5",
            "roles..count=1",
            "app=[",
            "app=--- a\n--- b",
            "app=!!str spark",
        )
        assert mistakes_in(tmp_path, LAB, *sets, catalog=catalog, known_flavors={}) == [
            (
                "--set roles.wroker.count: roles.wroker is not a node role of the app spark. | "
                'Did you mean "worker"?'
            ),
            '--set nam: nam is not a known key. | Did you mean "name"?',
            '--set roles.worker.count: roles.worker.count must be a whole number, not "many".',
            '--set roles.worker.flavor: There is no flavor "mediun". | Did you mean "medium"?',
            (
                "--set roles.master.services[0]: No image for spark offers the service "
                '"jupiter". | Did you mean "jupyter"?'
            ),
            (
                "--set roles.master.services[7]: roles.master.services has 1 items, "
                "so roles.master.services[7] cannot be set."
            ),
            "--set name.first: name is not a mapping, so name.first cannot be set.",
            "--set roles[0]: roles is not a list, so roles[0] cannot be set.",
            "--set kind: kind cannot be set.",
            (
                "--set roles.worker: This is not of the form PATH=VALUE. | "
                "Write it like --set roles.worker.count=5."
            ),
            (
                "--set : This is not of the form PATH=VALUE. | "
                "Write it like --set roles.worker.count=5."
            ),
            (
                "--set roles..count: This is not of the form PATH=VALUE. | "
                "Write it like --set roles.worker.count=5."
            ),
            (
                "--set app: A list or mapping in brackets is not closed, or lacks a comma, "
                "before here."
            ),
            "--set app: The value is not one value.",
            '--set app: The tag "!!str" is not allowed. | Write the plain value.',
        ]

    @pytest.mark.parametrize(
        ("written", "version"),
        [("3.10", "3.10"), ('"3.10"', "3.10"), ("3", "3")],
    )
    def test_a_number_is_the_text_that_was_written_where_text_is_wanted(
        self, tmp_path: Path, written: str, version: str
    ) -> None:
        job = "kind: Job\nname: a\ncluster: {name: b}\nsubmit: {file: a.py}\n"
        documents = load_text(
            tmp_path,
            job,
            f"submit.spark_version={written}",
            "submit.args=[5e3, x]",
            "submit.args[2]=007",
            "submit.env.DEBUG=true",
        )
        submit = documents.jobs["a"].submit
        assert submit.spark_version == version
        assert submit.args == ("5e3", "x", "007")
        assert submit.env == {"DEBUG": "true"}

    def test_a_number_that_cannot_be_a_name_is_told_as_it_was_written(self, tmp_path: Path) -> None:
        assert mistakes_in(tmp_path, LAB, "tenant=1e3", "roles.worker.flavor=0x10") == [
            (
                "--set tenant: tenant must be a name of at most 32 lower-case letters, digits and "
                'dashes, beginning with a letter, not ending in a dash. | Did you mean "e3"?'
            ),
            (
                "--set roles.worker.flavor: roles.worker.flavor must be a name of at most 32 "
                "lower-case letters, digits and dashes, beginning with a letter, not ending in a "
                'dash. | Did you mean "x10"?'
            ),
        ]

    def test_it_needs_exactly_one_template(self, tmp_path: Path) -> None:
        flavor = "kind: Flavor\nname: a\ncores: 1\nmemory: 1g\n"
        [mistake] = mistakes_in(tmp_path, flavor, "name=b")
        told = (
            "--set: It needs one Template to change, but the files hold none. | Keys of a Job begin"
        )
        assert mistake.startswith(told)
        two = LAB + "---\nkind: Template\nname: b\napp: spark\n"
        assert mistakes_in(tmp_path, two, "name=b") == [
            "--set: It needs one Template to change, but the files hold 2."
        ]

    @given(st.text())
    @settings(max_examples=200)
    def test_no_text_does_harm(self, text: str) -> None:
        problems: list[Problem] = []
        documents = read(Source("f", 0, LAB.encode()), problems)
        parsed = overrides.parse([text, f"roles={text}", f"{text}=1"], problems)
        overrides.apply(parsed, documents, problems)


class TestFiles:
    def test_mistakes_of_all_files_come_by_file_and_line(self, tmp_path: Path) -> None:
        (tmp_path / "b.yml").write_text("kind: Flavor\n" * 12 + "x: 1\n")
        (tmp_path / "a.yml").write_text("kind: Flavor\nname: a\ncores: x\nmemory: y\n")
        with pytest.raises(InputErrors) as caught:
            load_documents([tmp_path / "b.yml", tmp_path / "a.yml"])
        places = [line.split(": ")[0] for line in lines_of(caught.value, tmp_path)]
        expected = ["b.yml:1"] * 3 + [f"b.yml:{line}" for line in range(2, 14)]
        assert places == [*expected, "a.yml:3", "a.yml:4"]

    def test_a_folder_stands_for_its_yaml_files(self, tmp_path: Path) -> None:
        for name in ("b.yml", "a.yaml", "c.json", ".hidden.yml"):
            (tmp_path / name).write_text(
                f"kind: Flavor\nname: {name[0].replace('.', 'h')}\ncores: 1\nmemory: 1g\n"
            )
        assert list(load_documents([tmp_path]).flavors) == ["a", "b"]

    def test_a_file_that_is_named_twice_is_read_once(self, tmp_path: Path) -> None:
        path = tmp_path / "lab.yml"
        path.write_text(LAB)
        assert list(load_documents([path, tmp_path, str(path)]).templates) == ["lab"]

    def test_a_dash_reads_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Standard:
            buffer = io.BytesIO(b"kind: Flavor\nname: a\ncores: x\nmemory: 1g\n")

        monkeypatch.setattr(sys, "stdin", Standard)
        with pytest.raises(InputErrors) as caught:
            load_documents(["-"])
        assert lines_of(caught.value) == ['stdin:3: cores must be a whole number, not "x".']

    def test_what_cannot_be_read_is_a_mistake_beside_the_others(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "lab.yml").write_text("kind: Flavr\n")
        paths = [tmp_path / "none.yml", tmp_path / "empty", tmp_path / "lab.yml", "a\0b"]
        with pytest.raises(InputErrors) as caught:
            load_documents(paths)
        assert sorted(lines_of(caught.value, tmp_path)) == sorted(
            [
                "none.yml: There is no such file.",
                f"{tmp_path}/empty: The folder holds no *.yml files.".replace(f"{tmp_path}/", ""),
                'lab.yml:1: "Flavr" is not a known kind. | Did you mean "Flavor"?',
                "a�b: The file cannot be read: embedded null byte.",
            ]
        )

    def test_a_file_that_fails_while_it_is_read_is_a_mistake(self) -> None:
        with pytest.raises(InputErrors) as caught:
            load_documents(["/proc/self/mem"])
        assert lines_of(caught.value) == [
            "/proc/self/mem: The file cannot be read: Input/output error."
        ]

    def test_a_thousand_mistakes_are_cut_short(self, tmp_path: Path) -> None:
        text = "kind: Flavor\n" + "".join(f"k{number}: 1\n" for number in range(5000))
        mistakes = mistakes_in(tmp_path, text)
        assert len(mistakes) == 101
        assert mistakes[-1] == "lab.yml:99: 1 or more mistakes follow."

    def test_many_wrong_node_roles_cost_little_time(self, tmp_path: Path, catalog: Catalog) -> None:
        roles = "".join(f"  r{number}: {{count: x, flavor: y}}\n" for number in range(4000))
        text = f"kind: Template\nname: a\napp: spark\nroles:\n{roles}"
        mistakes = mistakes_in(tmp_path, text, catalog=catalog, known_flavors={})
        assert len(mistakes) == 101


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@st.composite
def nearly_documents(draw: st.DrawFn) -> Any:
    """Draw documents whose keys are known and whose values are anything."""
    kind = draw(st.sampled_from([*MODELS, "DataTap", "x", None]))
    keys = st.sampled_from(
        [
            *("name", "cores", "memory", "disk", "quota", "members", "app", "tenant", "roles"),
            *("services", "version", "revision", "label", "summary", "image", "parent", "user"),
            *("cluster", "template", "submit", "file", "args", "conf", "env", "timeout", "class"),
            *("role", "min", "max", "endpoints", "port", "probe", "count", "flavor"),
        ]
    )
    names = st.sampled_from(["a", "spark", "master", "worker", "small", "jupyter", "root", "2g"])
    inner = st.recursive(
        json_values | names,
        lambda deeper: (
            st.lists(deeper, max_size=3) | st.dictionaries(keys | names, deeper, max_size=4)
        ),
        max_leaves=12,
    )
    return {"kind": kind} | draw(st.dictionaries(keys, inner, max_size=8))


@given(nearly_documents() | json_values)
@settings(max_examples=400)
def test_no_document_raises_anything_but_its_mistakes(
    catalog: Catalog, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    folder = tmp_path_factory.getbasetemp()
    try:
        load_text(
            folder,
            text.encode("utf-8", "surrogatepass"),
            catalog=catalog,
            known_flavors={},
            known_tenants={},
        )
    except InputErrors as error:
        for mistake in error.mistakes:
            assert mistake.where
            assert mistake.message.endswith(".")
            assert (mistake.message + (mistake.hint or "")).isprintable()


@given(st.sampled_from(sorted(SYSTEM_USERS)))
def test_no_member_can_be_a_user_of_the_system(name: str) -> None:
    with pytest.raises(ValueError, match="of the system"):
        Member(user=name)


def test_reading_files_loads_nothing_heavy() -> None:
    program = (
        "import sys, epic_runner.spec.load, epic_runner.catalog\n"
        "heavy = {'rich', 'sqlalchemy', 'docker', 'ansible', 'ansible_runner', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
