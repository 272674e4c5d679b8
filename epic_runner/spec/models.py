"""What the YAML may hold: one pydantic model a kind, the border between people and the program.

Descriptions of fields are part of the product: the JSON Schema for editors, docs/spec.md and the
hints of error messages are made from them. Messages of the checks here read on from a key's name
("memory must be a size"), so that `load` can put the place in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from epic_runner import programs
from epic_runner.cluster import Lifetime as Limits
from epic_runner.cluster import Size
from epic_runner.spec import destinations, quantities

NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$"
ROLE_PATTERN: Final = r"^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$"
USER_PATTERN: Final = r"^[a-z_][-a-z0-9_]{0,31}$"
VERSION_PATTERN: Final = r"^[0-9A-Za-z]([-0-9A-Za-z._]{0,62}[0-9A-Za-z])?$"
APP_PATTERN: Final = (
    r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?(@[0-9A-Za-z]([-0-9A-Za-z._]{0,62}[0-9A-Za-z])?)?$"
)
PRINCIPAL_PATTERN: Final = r"^[^@/\s]{1,64}(/[^@/\s]{1,255})?@[^@/\s]{1,255}$"
IMAGE_PATTERN: Final = r"^[a-z0-9]+([._/-][a-z0-9]+){0,20}$"
ANSIBLE_ROLE_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$"
PATH_PATTERN: Final = r"^/[!-~]{0,255}$"
SPARK_VERSION_PATTERN: Final = r"^[0-9]{1,4}(\.[0-9]{1,4}){0,2}$"

# Users and groups that Debian or the software of our images own: a member of that name would
# share their files. A member also gets a group of the same name.
# fmt: off
SYSTEM_USERS: Final = frozenset(
    [
        "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp",
        "proxy", "www-data", "backup", "list", "irc", "gnats", "nobody", "nogroup",
        "systemd-network", "systemd-resolve", "systemd-timesync", "systemd-coredump", "_apt",
        "systemd-journal", "messagebus", "sshd", "polkitd", "ntp", "postfix", "syslog", "adm",
        "tty", "disk", "kmem", "dialout", "fax", "voice", "cdrom", "floppy", "tape", "sudo",
        "audio", "dip", "operator", "src", "shadow", "utmp", "video", "sasl", "plugdev",
        "staff", "users", "input", "sgx", "kvm", "render", "crontab", "netdev", "wheel",
        "ssl-cert", "docker", "admin", "ansible", "epic", "tenant", "container", "spark",
        "hadoop", "hdfs", "yarn", "mapred", "hive", "hbase", "kafka", "zookeeper", "mesos",
        "zeppelin", "jupyter", "rstudio", "rstudio-server", "haproxy", "postgres", "prometheus",
        "grafana", "s6", "s6log",
    ]
)
# fmt: on


def refusal(message: str, hint: str | None = None) -> PydanticCustomError:
    """Return an error whose message reads on from the key's name; `load` adds the place."""
    return PydanticCustomError("epic", "{message}", {"message": message, "hint": hint})


def _matching(pattern: str, message: str, *, name: bool = True) -> Callable[[str], str]:
    """Return a check that a text matches `pattern` as a whole.

    Of a `name` that nearly does, the error's hint gives the nearest that would.
    """
    expression = re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII)

    def check(value: str) -> str:
        if expression.fullmatch(value):
            return value
        mended = re.sub(r"[^a-z0-9]+", "-", value[:100].lower()).lstrip("-0123456789").rstrip("-")
        fits = name and expression.fullmatch(mended) is not None
        raise refusal(message, f'Did you mean "{mended}"?' if fits else None)

    return check


_NAME_FORM = "lower-case letters, digits and dashes, beginning with a letter, not ending in a dash"
check_name: Final = _matching(NAME_PATTERN, f"must be a name of at most 32 {_NAME_FORM}")
_check_role = _matching(ROLE_PATTERN, f"must be a name of at most 20 {_NAME_FORM}")
_match_user = _matching(
    USER_PATTERN,
    "must be a Unix user name of at most 32 lower-case letters, digits, dashes and underscores, "
    "beginning with a letter",
)


def _check_user(value: str) -> str:
    if value in SYSTEM_USERS:
        raise refusal(f'cannot be "{value}", a user or group of the system')
    return _match_user(value)


def _size(value: object) -> int:
    try:
        return quantities.parse_size(value)
    except quantities.SizeError as error:
        raise refusal(error.message, error.hint) from None


def _duration(value: object) -> int:
    try:
        return quantities.parse_duration(value)
    except ValueError as error:
        raise refusal(str(error)) from None


def _program(value: str) -> str:
    if programs.kind_of(value) is None:
        raise refusal(f"must be a program's file: {programs.KINDS_TEXT}")
    return value


def _without_comma(value: str) -> str:
    if "," in value:
        raise refusal("must have no comma, which divides files for Spark")
    return value


def _python_file(value: str) -> str:
    if not programs.is_python_file(value):
        raise refusal(f"must be a file that ends in {' or '.join(programs.PY_FILE_KINDS)}")
    return value


def _names_matching(pattern: str, what: str) -> Callable[[dict[str, str]], dict[str, str]]:
    """Return a check that the keys of a mapping match `pattern` as a whole."""
    expression = re.compile(pattern, re.ASCII)

    def check(value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if not expression.fullmatch(key):
                raise refusal(f'holds "{key[:60]}", which is no name of {what}')
        return value

    return check


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise refusal(f'holds "{value}" twice')
    return values


def _printable(value: str) -> str:
    if not value.isprintable():
        raise refusal("must be one line of plain text")
    return value


def _as_tuple(value: object) -> object:
    # Only what YAML writes as a list is one; pydantic would also take sets and generators.
    return tuple(value) if isinstance(value, list) else value


def _destination(value: str) -> str:
    if value not in destinations.WORDS:
        try:
            destinations.parse_destination(value)
        except destinations.DestinationError as error:
            raise refusal(error.message, error.hint) from None
    return value


def _egress(value: object) -> object:
    if value == "none":
        return {"allow": []}
    if isinstance(value, list):
        raise refusal("must be none or a mapping with allow, not a list", "Write {allow: [...]}.")
    if not isinstance(value, dict):
        raise refusal(
            "must be none or a mapping with allow", "For example {allow: [packages, nn1:8020]}."
        )
    return value


def _pattern(pattern: str, form: str) -> tuple[AfterValidator, object]:
    return AfterValidator(_matching(pattern, form, name=False)), Field(
        json_schema_extra={"pattern": pattern}
    )


Name = Annotated[
    str, AfterValidator(check_name), Field(json_schema_extra={"pattern": NAME_PATTERN})
]
RoleName = Annotated[
    str, AfterValidator(_check_role), Field(json_schema_extra={"pattern": ROLE_PATTERN})
]
UserName = Annotated[
    str, AfterValidator(_check_user), Field(json_schema_extra={"pattern": USER_PATTERN})
]
Version = Annotated[
    str,
    *_pattern(VERSION_PATTERN, 'must be a version such as "3.5.9"'),
]
AppReference = Annotated[
    str,
    *_pattern(APP_PATTERN, "must be an app, such as spark or spark@3.5.9"),
]
Principal = Annotated[
    str,
    *_pattern(PRINCIPAL_PATTERN, "must be a Kerberos principal such as ada@EXAMPLE.COM"),
]
ImageRepository = Annotated[
    str,
    *_pattern(IMAGE_PATTERN, "must be the repository of an image, such as epic/spark"),
]
AnsibleRole = Annotated[
    str,
    *_pattern(ANSIBLE_ROLE_PATTERN, "must be an Ansible role, such as spark"),
]
UrlPath = Annotated[str, *_pattern(PATH_PATTERN, "must be a path that begins with a slash")]
Bytes = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": quantities.PATTERN},
                {"type": "integer", "minimum": quantities.SMALLEST},
            ]
        }
    ),
]
Cores = Annotated[StrictInt, Field(ge=1, le=4096)]
Limit = Annotated[StrictInt, Field(ge=0, le=1_000_000)]
Count = Annotated[StrictInt, Field(ge=0, le=10_000)]
Title = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Names = Annotated[
    tuple[Name, ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
    Field(json_schema_extra={"uniqueItems": True}),
]


Allowed = Annotated[
    tuple[Annotated[str, AfterValidator(_destination)], ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
    Field(json_schema_extra={"uniqueItems": True}),
]


Text = Annotated[str, Field(max_length=10_000)]
Duration = Annotated[
    int,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": quantities.DURATION_PATTERN}),
]
SparkVersion = Annotated[
    str,
    *_pattern(SPARK_VERSION_PATTERN, 'must be a version of Spark, such as "3.5" or "3.5.9"'),
]
ProgramFile = Annotated[
    str, Field(min_length=1, max_length=4096), AfterValidator(_printable), AfterValidator(_program)
]
PythonFiles = Annotated[
    tuple[Annotated[str, AfterValidator(_printable), AfterValidator(_python_file)], ...],
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
    Field(json_schema_extra={"uniqueItems": True}),
]
CarriedFiles = Annotated[
    tuple[
        Annotated[
            str,
            Field(min_length=1, max_length=4096),
            AfterValidator(_printable),
            AfterValidator(_without_comma),
        ],
        ...,
    ],
    BeforeValidator(_as_tuple),
    AfterValidator(_distinct),
    Field(json_schema_extra={"uniqueItems": True}),
]


class Part(BaseModel):
    """The base of all models: what is not described here is refused, and nothing changes later."""

    # Validators are built when they are first used: most commands use few of them.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Flavor(Part):
    """A node size."""

    kind: Literal["Flavor"] = Field("Flavor", description="Says that the document is a flavor.")
    name: Name = Field(description="The name by which node roles ask for this size.")
    cores: Cores = Field(description="Whole CPU cores of a node.")
    memory: Bytes = Field(description="Memory of a node, such as 4g.")
    disk: Bytes | None = Field(None, description="Disk of a node, such as 20g; no limit if absent.")

    @property
    def size(self) -> Size:
        """The size of one node."""
        return Size(self.cores, self.memory, self.disk or 0)


class Quota(Part):
    """What all clusters of a tenant may use together; what is absent is not limited."""

    cores: Limit | None = Field(None, description="CPU cores of all nodes together.")
    memory: Bytes | None = Field(None, description="Memory of all nodes together, such as 128g.")
    disk: Bytes | None = Field(None, description="Disk of all nodes together, such as 2t.")
    nodes: Limit | None = Field(None, description="Nodes in all clusters together.")
    clusters: Limit | None = Field(None, description="Clusters at one time.")


class Member(Part):
    """A person in a tenant: an ordinary user on every node of its clusters."""

    user: UserName = Field(description="The user's name, the same on every node.")
    role: Literal["admin", "member"] = Field(
        "member", description="What the user may do in the tenant: admin or member."
    )
    sudo: StrictBool = Field(
        default=False, description="Whether the user may become root on the tenant's nodes."
    )
    principal: Principal | None = Field(
        None, description="The user's Kerberos principal, such as ada@EXAMPLE.COM."
    )


def _distinct_users(members: tuple[Member, ...]) -> tuple[Member, ...]:
    users = [member.user for member in members]
    for index, user in enumerate(users):
        if user in users[:index]:
            raise refusal(f'holds the user "{user}" twice')
    return members


class Egress(Part):
    """What the nodes of a tenant may reach outside of its network."""

    allow: Allowed = Field(
        description="What is open: packages (the site's package mirrors), datataps (the tenant's "
        "DataTaps), networks and names of hosts, these with :PORT or for all ports.",
    )


def _or_none(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"const": "none"}]


def _default_egress() -> Egress:
    # People who need nothing but libraries and their declared data need not write anything.
    return Egress.model_construct(allow=destinations.WORDS)


class Tenant(Part):
    """A group of people with a quota, a network and a storage of their own."""

    kind: Literal["Tenant"] = Field("Tenant", description="Says that the document is a tenant.")
    name: Name = Field(description="The tenant's name.")
    quota: Quota = Field(
        default_factory=Quota, description="What the tenant's clusters may use together."
    )
    members: Annotated[
        tuple[Member, ...], BeforeValidator(_as_tuple), AfterValidator(_distinct_users)
    ] = Field((), description="The people in the tenant.")
    egress: Annotated[Egress, BeforeValidator(_egress)] = Field(
        default_factory=_default_egress,
        json_schema_extra=_or_none,
        description="What its nodes may reach outside of its network, or none; package mirrors "
        "and DataTaps if absent.",
    )


class RoleRequest(Part):
    """The nodes that a template wants of one node role."""

    count: Count | None = Field(
        None, description="How many nodes; the app's least number, but at least 1, if absent."
    )
    flavor: Name = Field("small", description="The flavor of each node.")
    services: Names = Field(
        (), description="Services that each node runs beside those of the app, such as jupyter."
    )


class Connections(Part):
    """What else of the tenant a cluster's members work on, with nothing to configure by hand."""

    clusters: Names = Field(
        (),
        description="Clusters of the same tenant on which this one's notebooks and jobs may run.",
    )


# How long before a cluster's end people are warned, where its template does not say.
WARN_SECONDS: Final = 15 * 60


def _before_the_end(value: int | None, info: ValidationInfo) -> int | None:
    for key in ("max_idle", "max_age"):
        limit = info.data.get(key)
        if value is not None and limit is not None and value >= limit:
            raise refusal(f"must be less than {key}, which is {quantities.format_duration(limit)}")
    return value


class Lifetime(Part):
    """When a cluster ends by itself; without a limit it lasts until somebody ends it."""

    max_idle: Duration | None = Field(
        None, description="How long it may go unused, such as 2h; no limit if absent."
    )
    max_age: Duration | None = Field(
        None,
        description="How long it may run since its launch or last start, such as 7d; no limit if "
        "absent.",
    )
    action: Literal["stop", "destroy"] = Field(
        "stop", description="How it ends: stop keeps what is in its nodes, destroy does not."
    )
    warn: Annotated[Duration | None, AfterValidator(_before_the_end)] = Field(
        None,
        description="How long before the end people are warned; 15m, but at most half of the "
        "shorter limit, if absent.",
    )

    @property
    def limits(self) -> Limits | None:
        """The limits as the program has them; None where there is none."""
        shortest = min(filter(None, (self.max_idle, self.max_age)), default=None)
        if shortest is None:
            return None
        warn = min(WARN_SECONDS, shortest // 2) if self.warn is None else self.warn
        return Limits(self.max_idle, self.max_age, self.action, warn)


class Action(Part):
    """A script that the nodes get before the cluster is of use."""

    run: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="The script: a file, by its path from this file's folder."
    )
    command: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Instead of run: a line for bash, or a whole script in this place."
    )
    name: Title | None = Field(
        None, description="What it is called; the file's name, or the command, if absent."
    )
    args: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="What the script gets on its command line."
    )
    env: Annotated[
        dict[str, Text], AfterValidator(_names_matching(programs.VARIABLE, "a variable"))
    ] = Field(default_factory=dict, description="More variables of its environment.")
    roles: Annotated[
        tuple[RoleName, ...],
        BeforeValidator(_as_tuple),
        AfterValidator(_distinct),
        Field(json_schema_extra={"uniqueItems": True}),
    ] = Field((), description="The node roles that get it; all of them if absent.")
    sudo: StrictBool = Field(
        default=False, description="Whether it runs as root; only for members who may."
    )
    replay: StrictBool = Field(
        default=False,
        description="Whether nodes get it that are added, or made anew, later; else only those "
        "of the first launch.",
    )
    timeout: Duration | None = Field(
        None, description="After how long a node ends it, such as 10m; never if absent."
    )
    on_failure: Literal["stop", "continue"] = Field(
        "stop",
        description="What a failure on a node comes to: the launch fails, or goes on and tells.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.run is None) == (self.command is None):
            raise refusal("must have either run, a file, or command")
        return self


class Template(Part):
    """A cluster minus its name: an app, and how many nodes of which size in each node role."""

    kind: Literal["Template"] = Field(
        "Template", description="Says that the document is a template."
    )
    name: Name = Field(description="The template's name, and its cluster's if none is given.")
    tenant: Name | None = Field(
        None, description="The tenant that launches it; `launch --tenant` may name it instead."
    )
    app: AppReference = Field(
        description="The app to run: its name, or its name and version as in spark@3.5.9."
    )
    roles: dict[RoleName, RoleRequest] = Field(
        default_factory=dict,
        description="The node roles; one left out gets the app's least number of small nodes.",
    )
    connections: Connections = Field(
        default_factory=Connections,
        description="Larger clusters, say, that this one's notebooks may submit to.",
    )
    lifetime: Lifetime = Field(
        default_factory=Lifetime, description="When it ends by itself: unused, or too old."
    )
    actions: Annotated[tuple[Action, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="Scripts that the nodes get, one after the other, before it is of use."
    )

    @property
    def app_name(self) -> str:
        """The app's name without a version."""
        return self.app.partition("@")[0]

    @property
    def app_version(self) -> str | None:
        """The version that the template insists on, or None for the catalogue's."""
        return self.app.partition("@")[2] or None


class JobCluster(Part):
    """Where a job runs: on a cluster that is there, or on one that is made for it."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["name"]}, {"required": ["template"]}]}
    )

    name: Name | None = Field(None, description="A cluster that is there, and stays.")
    template: Name | None = Field(
        None,
        description="A Template of the same files, of which a cluster is made for the job; it is "
        "removed when the job is over, however it ended.",
    )
    keep: StrictBool = Field(
        default=False, description="Whether the cluster that was made for the job stays after it."
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.name is None) == (self.template is None):
            raise refusal(
                "must have either name, a cluster that is there, or template, of which one is made"
            )
        if self.keep and self.name is not None:
            raise refusal("cannot have keep with name", "A cluster that is there always stays.")
        return self


class JobSubmit(Part):
    """What a job runs, as `epic-run submit` takes it."""

    file: ProgramFile = Field(
        description="The program, by its path from this file's folder; or a file inside the nodes, "
        "if it begins with /tenant/ or /data/."
    )
    args: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="The program's arguments."
    )
    name: Title | None = Field(
        None, description="The name of the Spark application; the job's name if absent."
    )
    conf: Annotated[
        dict[str, Text], AfterValidator(_names_matching(programs.CONF_KEY, "a Spark property"))
    ] = Field(default_factory=dict, description="Properties of Spark, such as spark.cores.max.")
    py_files: PythonFiles = Field(
        (), description="More Python files (.py, .zip, .egg) for the driver and the executors."
    )
    jars: CarriedFiles = Field((), description="More jars for the class paths of both.")
    files: CarriedFiles = Field(
        (), description="Files for the working folders of both, which SparkFiles.get finds."
    )
    archives: CarriedFiles = Field(
        (), description="Archives that are unpacked there, with #name behind one for its folder."
    )
    main_class: Title | None = Field(
        None, alias="class", description="The main class of a jar whose manifest names none."
    )
    env: Annotated[
        dict[str, Text], AfterValidator(_names_matching(programs.VARIABLE, "a variable"))
    ] = Field(default_factory=dict, description="Variables of the program's environment.")
    on: Name | None = Field(
        None, description="The connected cluster on whose workers it runs; its own if absent."
    )
    spark_version: SparkVersion | None = Field(
        None,
        description='The Spark that it needs, such as "3.5": a cluster of another one is refused.',
    )


def _cron(value: str) -> str:
    from epic_runner import cron

    try:
        return cron.check_line(value)
    except ValueError as error:
        raise refusal(str(error)) from None


def _zone(value: str | None) -> str | None:
    from epic_runner import cron

    try:
        return None if value is None else cron.check_zone(value)
    except ValueError as error:
        raise refusal(str(error)) from None


def _schedule(value: object) -> object:
    return {"cron": value} if isinstance(value, str) else value


def _or_cron_line(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "string"})


class Schedule(Part):
    """When a job runs by the clock, and what becomes of it when that cannot be."""

    cron: Annotated[Title, AfterValidator(_cron)] = Field(
        description="Minute, hour, day, month and weekday, as cron has them, or @daily."
    )
    timezone: Annotated[Title | None, AfterValidator(_zone)] = Field(
        None,
        description="The time zone, such as Europe/Berlin; that of the machine where the job is "
        "scheduled, if absent.",
    )
    overlap: Literal["skip", "queue"] = Field(
        "skip",
        description="What becomes of a run that is due while one goes on: skip leaves it out, "
        "queue has it wait.",
    )
    missed: Literal["run_once", "skip"] = Field(
        "run_once",
        description="What becomes of times at which nobody was there to run it: one run makes up "
        "for all of them, or none.",
    )
    retries: Annotated[StrictInt, Field(ge=0, le=10)] = Field(
        0, description="How often a run that failed is tried again."
    )
    retry_after: Duration | None = Field(
        None, description="How long after its end a run that failed is tried again; 5m if absent."
    )


class Job(Part):
    """A program, and the cluster on which it runs: `epic-run run` and schedules take it."""

    kind: Literal["Job"] = Field("Job", description="Says that the document is a job.")
    name: Name = Field(description="The job's name; clusters that are made for it begin so.")
    tenant: Name | None = Field(
        None, description="The tenant of its cluster; the template's, or the cluster's if absent."
    )
    cluster: JobCluster = Field(description="Where it runs.")
    submit: JobSubmit = Field(description="What it runs.")
    user: UserName | None = Field(
        None, description="The member who runs it; the tenant's first administrator if absent."
    )
    timeout: Duration | None = Field(
        None, description="After how long the program is ended, such as 2h; never if absent."
    )
    schedule: Annotated[Schedule | None, BeforeValidator(_schedule)] = Field(
        None,
        json_schema_extra=_or_cron_line,
        description="When `epic-run schedule` runs it: a cron line, or a mapping with cron.",
    )


class AppRole(Part):
    """A node role of an app's clusters."""

    min: Count = Field(0, description="The least number of nodes.")
    max: Count | None = Field(None, description="The most nodes; no limit if absent.")
    services: Names = Field((), description="Services that every node of this role runs.")
    memory: Bytes | None = Field(
        None, description="The least memory of a node with this role, such as 1g."
    )


class AppEndpoint(Part):
    """An address of a service that people open."""

    name: Name = Field(description="The endpoint's name, unique in the app and its parents.")
    label: Title = Field(description="Its title for people.")
    port: Annotated[StrictInt, Field(ge=1, le=65535)] = Field(
        description="The port on which the service listens inside the node."
    )
    path: UrlPath = Field("/", description="The path to open.")
    token: StrictBool = Field(
        default=False, description="Whether the address carries a secret token of the cluster."
    )
    keeps_path: StrictBool = Field(
        default=False,
        description="Whether the service is told the path under which a gateway offers it; "
        "else the gateway takes that path off.",
    )


class AppProbe(Part):
    """How to learn whether a service is ready: by the JSON of an endpoint, its own or another's."""

    endpoint: Name = Field(description="The endpoint to ask, of this service or of its registry.")
    path: UrlPath = Field("/", description="The path that answers 200, with JSON if list is given.")
    list: str | None = Field(
        None, description="The key of a list of registered nodes in the answer's JSON."
    )
    node: str = Field("host", description="The key, in an item of the list, of a node's name.")
    match: dict[str, str] = Field(
        default_factory=dict,
        description="Keys and values that the item of a ready node has.",
    )


class AppService(Part):
    """A service that an app's image can run."""

    role: AnsibleRole = Field(description="The Ansible role that configures the service.")
    summary: Title = Field(description="One sentence about the service.")
    endpoints: Annotated[tuple[AppEndpoint, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="The addresses that people open."
    )
    memory: Bytes | None = Field(
        None, description="Memory that a node needs for it beyond its node role's, such as 1g."
    )
    memory_beside: dict[Name, Bytes] = Field(
        default_factory=dict,
        description="What it needs beyond that on a node that runs certain other services too, by "
        "their names, such as {spark-worker: 256m}.",
    )
    probe: AppProbe | None = Field(
        None, description="How to learn whether it is ready; a running node is ready if absent."
    )


class App(Part):
    """A catalogue entry: an image, the node roles of its clusters and the services it can run."""

    kind: Literal["App"] = Field("App", description="Says that the document is an app.")
    name: Name = Field(description="The app's name, and its folder's.")
    version: Version = Field(description='The version of its software, in quotes: "3.5.9".')
    revision: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        description="The number of our packaging of that version, from 1."
    )
    label: Title = Field(description="Its title for people.")
    summary: Title = Field(description="One sentence for the catalogue.")
    image: ImageRepository = Field(
        description="The repository of its image, such as epic/spark; the tag is VERSION-rREVISION."
    )
    parent: Name | None = Field(
        None, description="The app whose image this one's is built on; none for a base."
    )
    roles: dict[RoleName, AppRole] = Field(
        default_factory=dict,
        description="The node roles of its clusters; without any it cannot be launched by itself.",
    )
    services: dict[Name, AppService] = Field(
        default_factory=dict,
        description="The services that its image can run beyond those of its parents.",
    )

    @property
    def tag(self) -> str:
        """The tag of its image: `3.5.9-r1`."""
        return f"{self.version}-r{self.revision}"

    @property
    def reference(self) -> str:
        """The full reference of its image: `epic/spark:3.5.9-r1`."""
        return f"{self.image}:{self.tag}"

    @property
    def launchable(self) -> bool:
        """Whether a template can be made of it, so not only a foundation of other apps."""
        return bool(self.roles)


Document = Flavor | Tenant | Template | Job | App

MODELS: Final[dict[str, type[Flavor | Tenant | Template | Job | App]]] = {
    "Flavor": Flavor,
    "Tenant": Tenant,
    "Template": Template,
    "Job": Job,
    "App": App,
}

# Words of the format that this version knows of but cannot act on yet.
LATER_KINDS: Final = frozenset({"DataTap"})
LATER_KEYS: Final = {
    "Tenant": frozenset({"groups"}),
    "Template": frozenset({"datataps", "locked"}),
}

# Constructed without validation, whose machinery would cost every command that only imports this.
BUILTIN_FLAVORS: Final = {
    name: Flavor.model_construct(name=name, cores=cores, memory=memory_gib * 2**30)
    for name, cores, memory_gib in (("small", 1, 2), ("medium", 2, 4), ("large", 4, 8))
}
