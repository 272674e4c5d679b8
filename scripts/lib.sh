# shellcheck shell=bash
# What quickstart, test and check share: messages, Debian packages, the Docker engine, the Python
# environment and the Ansible collection. Sourced; it moves to the checkout's folder.
#
# Every ensure_* function first looks, by something cheap, whether its work is done already.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$ROOT" || exit 1
# Where dockerd, iptables and mmdebstrap are, and an ordinary user's PATH has no entry for.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
# epic-run speaks with this machine's engine, so nothing here may speak with another one.
unset DOCKER_CONTEXT
export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
# Neither an environment variable nor a world-writable parent folder may hide the project's own.
export ANSIBLE_CONFIG=$ROOT/ansible.cfg

readonly DOCKER_WAIT_SECONDS=60
readonly DOCKERD_LOG=/var/log/dockerd.log
readonly STAMP=.venv/.epic-lock

say() { printf '%s\n' "$*"; }

# die MESSAGE [HINT]
die() {
    printf 'Error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'Hint:  %s\n' "$2" >&2
    exit 1
}

# bad_usage MESSAGE
bad_usage() {
    printf 'Error: %s\nHint:  %s --help\n' "$1" "$0" >&2
    exit 2
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command whose output matters only when it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" </dev/null >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 40 "$log" >&2
        printf 'Error: "%s" failed with exit code %s; its last lines are above.\n' "$*" "$status" >&2
    fi
    rm -f "$log"
    return "$status"
}

# Whether an ordinary user had sudo run this.
is_by_sudo() { [ "$(id -u)" -eq 0 ] && [ "${SUDO_USER:-root}" != root ]; }

can_be_root() { [ "$(id -u)" -eq 0 ] || have sudo; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo -- "$@"
    else
        die "\"$*\" needs root, and there is no sudo." "Run this script as root."
    fi
}

# --- Debian and Ubuntu packages ---------------------------------------------------------------

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null |
            grep -qx installed || printf '%s\n' "$package"
    done
}

apt_lists_are_fresh=false

refresh_apt_lists() {
    $apt_lists_are_fresh || quietly as_root apt-get update -q
    apt_lists_are_fresh=true
}

apt_install() {
    local missing
    have apt-get || die "This is neither Debian nor Ubuntu, so this script cannot install: $*." \
        "Install the like of it with your system's package manager, then run this script again."
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing ${missing[*]} ..."
    refresh_apt_lists
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# --- Docker -----------------------------------------------------------------------------------

# 0: the engine answers; 1: nothing does; 2: it may, but this user is not let in.
read -r -d '' DOCKER_PING <<'PYTHON' || true
import os, socket, sys
try:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(os.environ["DOCKER_HOST"].removeprefix("unix://"))
    connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    sys.exit(0 if b" 200 " in connection.recv(64) else 1)
except PermissionError:
    sys.exit(2)
except OSError:
    sys.exit(1)
PYTHON

docker_ping() { python3 -c "$DOCKER_PING"; }

docker_ping_as_root() { as_root env DOCKER_HOST="$DOCKER_HOST" python3 -c "$DOCKER_PING"; }

wait_for_docker() {
    local deadline=$((SECONDS + DOCKER_WAIT_SECONDS))
    until docker_ping_as_root; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

start_docker() {
    say "Starting the Docker engine ..."
    if [ -d /run/systemd/system ]; then
        quietly as_root systemctl enable --now docker
        wait_for_docker || die "Docker does not answer after $DOCKER_WAIT_SECONDS s." \
            "journalctl -u docker"
        return
    fi
    # Without systemd nobody removes the pid file of an engine that was killed, and dockerd
    # refuses to start where another process has that number by now.
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root sh -c '
        pid=$(cat /var/run/docker.pid 2>/dev/null) || exit 0
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || rm -f /var/run/docker.pid'
    as_root sh -c "setsid dockerd >>$DOCKERD_LOG 2>&1 </dev/null &"
    if ! wait_for_docker; then
        as_root tail -n 20 "$DOCKERD_LOG" >&2
        die "Docker does not answer after $DOCKER_WAIT_SECONDS s; the last lines of $DOCKERD_LOG are above."
    fi
}

install_docker() {
    apt_install docker.io iptables
    # Debian 13 has the client, which ad-hoc plays on nodes use, in a package of its own.
    have docker || ! have apt-cache || [ -z "$(apt-cache madison docker-cli)" ] ||
        apt_install docker-cli
}

# Makes an engine answer; afterwards docker_ping says 0, or 2 where this user is not let in.
ensure_docker() {
    local state=0
    docker_ping || state=$?
    [ "$state" -ne 0 ] || return 0
    if [ "$state" -eq 2 ] && docker_ping_as_root; then
        return 0
    fi
    [ "$DOCKER_HOST" = unix:///var/run/docker.sock ] ||
        die "No Docker engine answers at DOCKER_HOST=$DOCKER_HOST." \
            "Start it, or unset DOCKER_HOST: epic-run uses the engine of its own machine."
    have dockerd || install_docker
    # The package starts the engine itself where an init system runs.
    docker_ping_as_root || start_docker
}

# Goes on as a member of the group docker where that is what lets this user in. The group's
# members can become root, so only the caller, who has said so, may be added to it.
ensure_docker_access() {
    local state=0 user command
    docker_ping || state=$?
    [ "$state" -eq 2 ] || return 0
    user=$(id -un)
    [ -z "${EPIC_IN_DOCKER_GROUP-}" ] ||
        die "The Docker engine does not let $user in, member of the group docker or not."
    if ! id -nG "$user" | tr ' ' '\n' | grep -qx docker; then
        say "Adding $user to the group docker (other shells see it after the next login) ..."
        as_root usermod -aG docker "$user"
    fi
    # The inner sg makes the user's own group the first one again, which new files belong to.
    printf -v command '%q ' "$@"
    printf -v command '%q ' exec sg "$(id -gn)" -c "$command"
    EPIC_IN_DOCKER_GROUP=1 exec sg docker -c "$command"
}

# --- PostgreSQL -------------------------------------------------------------------------------

# The server's programs for tests, which start servers of their own: a package that is not there yet
# is kept from making a database of its own and starting a server for it.
ensure_postgresql() {
    if have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
        return 0
    fi
    apt_install postgresql-common
    as_root sed -ri 's/^#?create_main_cluster .*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf
    apt_install postgresql
}

# --- A browser --------------------------------------------------------------------------------

# Some of these are only a word on how to get a snap, so they are asked for their version.
find_browser() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if have "$name" && timeout 30 "$name" --version >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

# The browser that tests open pages with. Ubuntu has no package of it.
ensure_browser() {
    ! find_browser || return 0
    ! have apt-get || refresh_apt_lists
    if have apt-cache && [ -n "$(apt-cache madison chromium)" ]; then
        apt_install chromium
    else
        say "No Chromium is here, and no package of it: the tests that open pages in it will fail."
    fi
}

# --- Python -----------------------------------------------------------------------------------

python_fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

python_makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Prints the Python to use. The system's own comes first: its build is the optimized one, and
# starting up is most of what a command does.
find_python() {
    local candidate
    for candidate in ${EPIC_PYTHON:+"$EPIC_PYTHON"} /usr/bin/python3 python3.13 python3.12 \
        python3.11 python3; do
        if ! have "$candidate" || ! python_fits "$candidate"; then
            continue
        fi
        if python_makes_venvs "$candidate" ||
            { [ "$candidate" = /usr/bin/python3 ] && have apt-get && can_be_root; }; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "No Python from 3.11 to 3.13 that can make environments was found on PATH." \
        "Install one with its venv module (Debian 12: apt-get install python3 python3-venv), or name it: EPIC_PYTHON=/path/to/python3.12 $0"
}

# lock_stamp LOCK: the line in $STAMP that says this lock is installed, for this very folder.
lock_stamp() { printf '%s %s %s\n' "$1" "$(sha256sum <"$1" | cut -d' ' -f1)" "$ROOT"; }

venv_is_ready() {
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null &&
        grep -qxF "$(lock_stamp "$1")" "$STAMP" 2>/dev/null
}

# ensure_venv LOCK: .venv with everything in the lock file, and the checkout itself.
ensure_venv() {
    local lock=$1 python other
    venv_is_ready "$lock" && return
    if ! { [ -x .venv/bin/python ] && python_fits .venv/bin/python; }; then
        python=$(find_python)
        python_makes_venvs "$python" || apt_install python3-venv
        say "Making the Python environment .venv with $("$python" --version) ..."
        rm -rf .venv
        "$python" -m venv .venv
    fi
    say "Installing the packages of $lock ..."
    rm -f "$STAMP"
    quietly .venv/bin/python -m pip install --disable-pip-version-check --no-input \
        --require-hashes --no-deps --requirement "$lock"
    quietly .venv/bin/python -m pip install --disable-pip-version-check --no-input \
        --no-deps --no-build-isolation --editable .
    # The larger lock holds all of the smaller one, at the same versions.
    for other in requirements.lock "$lock"; do lock_stamp "$other"; done | sort -u >"$STAMP"
}

# PYTHONDONTWRITEBYTECODE would have every command compile the program anew.
compile_package() {
    env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q \
        epic_runner library module_utils filter_plugins inventory_plugins
}

# --- Ansible collection -----------------------------------------------------------------------

# Takes two folders out of PyPI's `ansible`, which needs no Galaxy: the docker connection for
# ad-hoc plays on nodes, and what it imports.
ensure_collections() {
    local lock=requirements-collections.lock folder
    cmp -s "$lock" collections/.epic-lock && return
    say "Getting the Ansible collection community.docker ..."
    folder=$(mktemp -d)
    quietly .venv/bin/python -m pip download --disable-pip-version-check --no-input --no-deps \
        --require-hashes --only-binary :all: --dest "$folder" --requirement "$lock" ||
        { rm -rf "$folder"; return 1; }
    rm -rf collections
    .venv/bin/python - "$folder"/ansible-*.whl collections <<'PYTHON'
import sys
import zipfile

wanted = tuple(
    f"ansible_collections/community/{name}/" for name in ("docker", "library_inventory_filtering_v1")
)
with zipfile.ZipFile(sys.argv[1]) as wheel:
    wheel.extractall(sys.argv[2], [name for name in wheel.namelist() if name.startswith(wanted)])
PYTHON
    rm -rf "$folder"
    cp "$lock" collections/.epic-lock
}

# --- Images -----------------------------------------------------------------------------------

# 0: Docker has a base image, or can get what it is made from out of an image registry.
read -r -d '' BASE_IMAGE_IS_THERE <<'PYTHON' || true
import sys
import docker
from docker.errors import APIError
from requests.exceptions import RequestException
client = docker.from_env(timeout=15)
if any(client.images.list(name=name) for name in ("epic/base", "epic/rootfs", "debian:12-slim")):
    sys.exit(0)
try:
    client.api.inspect_distribution("debian:12-slim")
except (APIError, RequestException):
    sys.exit(1)
PYTHON

# What makes the base image where none is there and no image registry can be reached.
ensure_image_tools() {
    local packages=(mmdebstrap debian-archive-keyring)
    # Who is not root makes it in a user namespace.
    [ "$(id -u)" -eq 0 ] || packages+=(uidmap)
    ! have mmdebstrap || [ -n "$(missing_packages "${packages[@]}")" ] || return 0
    .venv/bin/python -c "$BASE_IMAGE_IS_THERE" || apt_install "${packages[@]}"
}
