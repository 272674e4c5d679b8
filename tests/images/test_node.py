"""The contract of nodes: what the base image makes of the files in /etc/epic."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from .conftest import ACCOUNTS, Docker, Node

pytestmark = pytest.mark.docker

SLEEPER = "#!/bin/bash\nexec 2>&1\necho hello $EPIC_TEST; echo oops >&2\nexec sleep 1000\n"
# A machine of the plainest kind: what the launcher leaves to nodes.
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"]


@pytest.fixture(scope="module")
def node(make: Callable[..., Node]) -> Node:
    files = {
        **ACCOUNTS,
        "sudoers": "ada ALL=(ALL) NOPASSWD: ALL\n",
        "dirs": "0750 ada tenant /data/own/deep\n1777 root root /data/open\n",
        "services/sleeper/run": SLEEPER,
        "services/off/run": SLEEPER,
        "services/off/down": "",
    }
    told = {"EPIC_ROLE": "desk", "EPIC_INDEX": "1"}
    made = make("base", files, cap_drop=["ALL"], cap_add=CAPABILITIES, environment=told)
    made.until("test -s /data/log/sleeper/current")
    return made


def test_pid_1_is_the_supervisor(node: Node) -> None:
    assert node.sh("cat /proc/1/comm") == "s6-svscan"


def test_accounts(node: Node) -> None:
    assert node.sh("id ada") == "uid=5001(ada) gid=5001(ada) groups=5001(ada),900(tenant)"
    assert node.sh("getent passwd root").startswith("root:x:0:0:")
    assert node.sh("grep -c ^tenant: /etc/group") == "1"
    assert node.sh("grep ^ada: /etc/shadow").split(":")[1] == "*"
    assert node.sh("stat -c %a /etc/shadow") == "640"


def test_homes(node: Node) -> None:
    assert node.sh("stat -c '%a %U %G' /home/ada/.bashrc /data/home/ada") == (
        "640 ada ada\n750 ada ada"
    )
    assert node.run("cat", "/home/ada/.bashrc", user="bob")[0] != 0


def test_sudo_is_for_those_who_were_given_it(node: Node) -> None:
    assert node.sh("sudo -n id -u", user="ada") == "0"
    assert node.run("sudo", "-n", "id", user="bob")[0] != 0
    assert node.sh("stat -c %a /etc/sudoers.d/epic") == "440"


def test_directories(node: Node) -> None:
    wanted = {
        "/data/own/deep": "750 ada tenant",
        "/data/open": "1777 root root",
        "/data/jobs": "1777 root root",
        "/tenant": "2775 root tenant",
    }
    for path, mode in wanted.items():
        assert node.sh(f"stat -c '%a %U %G' {path}") == mode


def test_members_share_files_of_the_tenant(node: Node) -> None:
    node.sh("umask 002; echo 1 >/tenant/shared", user="ada")
    assert node.sh("echo 2 >>/tenant/shared; cat /tenant/shared", user="bob") == "1\n2"


def test_services_log_both_streams_readable_by_members(node: Node) -> None:
    assert node.sh("cat /data/log/sleeper/current", user="bob") == "hello\noops"


def test_a_service_with_a_down_file_stays_down(node: Node) -> None:
    assert node.sh("s6-svstat -o up /run/epic/services/off") == "false"
    node.sh("s6-svc -u /run/epic/services/off")
    node.until("test -s /data/log/off/current")


def test_a_service_that_dies_comes_back(node: Node) -> None:
    before = node.sh("s6-svstat -o pid /run/epic/services/sleeper")
    node.sh(f"kill -9 {before}")
    node.until(f"p=$(s6-svstat -o pid /run/epic/services/sleeper); [ $p != {before} -a $p != -1 ]")


def test_no_zombies(node: Node) -> None:
    node.sh("(sleep 0.1 & exec sleep 0.3) & sleep 0.6")
    assert "defunct" not in node.sh("ps -ef")


def test_the_first_start_takes_the_files_from_its_input(make: Callable[..., Node]) -> None:
    node = make("base", start=False, stdin_open=True)
    files = {f"/etc/epic/{name}": {"content": text} for name, text in ACCOUNTS.items()}
    secret = {"content": "s" * 100_000, "mode": "0400", "uid": 5001}
    Docker().start_with(node.name, {**files, "/etc/epic/secrets/token": secret})
    node.until("id ada")
    assert node.sh("stat -c '%a %u %s' /etc/epic/secrets/token") == "400 5001 100000"
    assert node.sh("readlink /proc/1/fd/0") == "/dev/null"
    node.container.restart()
    node.until("test $(cat /proc/1/comm) = s6-svscan")


def test_a_node_that_was_sent_nothing_is_filled_later(make: Callable[..., Node]) -> None:
    node = make("base", start=False, stdin_open=True)
    Docker().start_with(node.name, {})
    node.until("test $(cat /proc/1/comm) = s6-svscan")
    node.put(ACCOUNTS)
    node.container.restart()
    node.until("id ada")


def test_stop_and_start_keep_the_node(make: Callable[..., Node]) -> None:
    files = {**ACCOUNTS, "services/sleeper/run": SLEEPER}
    node = make("base", files)
    node.until("test -s /data/log/sleeper/current")
    node.sh("useradd -u 7000 local; echo mine >/home/ada/file")
    seconds, code = node.stop()
    assert seconds < 3
    assert code == 0
    # Bob has left, and the group with him; what was made inside stays.
    node.put({"passwd": "ada:x:5001:5001:Ada:/home/ada:/bin/bash\n", "group": "ada:x:5001:\n"})
    node.container.start()
    node.until("s6-svstat -o up /run/epic/services/sleeper | grep true")
    assert node.sh("cat /home/ada/file") == "mine"
    assert node.run("id", "bob")[0] != 0
    assert node.sh("id -u local") == "7000"
    assert node.sh("stat -c '%U %a' /home/ada") == "ada 750"
    node.container.restart()
    node.until("s6-svstat -o up /run/epic/services/sleeper | grep true")


def test_a_node_without_services_stops_at_once(make: Callable[..., Node]) -> None:
    node = make("base", {})
    node.until("test $(cat /proc/1/comm) = s6-svscan")
    seconds, code = node.stop()
    assert (seconds < 2, code) == (True, 0)


def test_a_service_that_ignores_term_holds_nothing_up(make: Callable[..., Node]) -> None:
    stubborn = "#!/bin/bash\nexec 2>&1\ntrap '' TERM\necho up\nwhile :; do sleep 100; done\n"
    node = make("base", {"services/stubborn/run": stubborn})
    node.until("test -s /data/log/stubborn/current")
    seconds, code = node.stop()
    assert seconds < 9.5
    assert code == 0


def test_jobs_get_term_when_the_node_stops(make: Callable[..., Node]) -> None:
    node = make("base")
    node.until("id ada")
    script = "trap 'echo bye >/data/open; exit 0' TERM; sleep 100 & wait"
    node.sh("install -d -m 1777 /data/farewell")
    script = script.replace("/data/open", "/data/farewell/word")
    assert node.run("epic-job", "start", "j", "--user", "ada", "--", "bash", "-c", script)[0] == 0
    time.sleep(0.3)
    seconds, _ = node.stop()
    assert seconds < 4
    node.container.start()
    node.until("grep bye /data/farewell/word")
    code, _, err = node.run("epic-job", "follow", "j", "--from-start")
    assert (code in (0, 125, 143), "restarted" in err or code != 125) == (True, True)


def test_wait_tcp(node: Node) -> None:
    code, _, err = node.run("epic-wait", "tcp", "localhost", "4711", "--timeout", "1")
    assert (code, "4711" in err) == (1, True)
    node.run("bash", "-c", "(sleep 0.5; exec python3 -m http.server 4712) >/dev/null 2>&1 &")
    began = time.monotonic()
    assert node.run("epic-wait", "tcp", "localhost", "4712", "--timeout", "10")[0] == 0
    assert time.monotonic() - began < 5
    assert node.run("epic-wait", "tcp", "localhost", "http")[0] == 2
    assert node.run("epic-wait", "tcp", "no-such-host", "1", "--timeout", "1")[0] == 1


def test_wait_http(node: Node) -> None:
    node.sh('mkdir -p /tmp/www; echo \'{"workers": {"alive": 2}, "s": "on"}\' >/tmp/www/j')
    node.run("bash", "-c", "exec python3 -m http.server 4713 -d /tmp/www >/dev/null 2>&1 &")
    url = "http://localhost:4713/j"

    def wait(*words: str) -> int:
        return node.run("epic-wait", "http", url, "--timeout", "1", *words)[0]

    assert node.run("epic-wait", "http", url, "--timeout", "10")[0] == 0
    assert wait("--json", "workers.alive", ">=", "2") == 0
    assert wait("--json", "workers.alive", "==", "3") == 1
    assert wait("--json", "s", "==", "on") == 0
    assert wait("--json", "absent", "==", "1") == 1
    assert wait("--json", "s", "<", "1") == 2
    node.sh('echo \'{"w": [{"h": "a", "s": "ALIVE"}, {"h": "b", "s": "DEAD"}]}\' >/tmp/www/list')
    listed = [
        "epic-wait",
        "http",
        "http://localhost:4713/list",
        "--timeout",
        "1",
        "--all",
        "w",
        "h",
    ]
    assert node.run(*listed, "a,b")[0] == 0
    assert node.run(*listed, "a", "--where", "s=ALIVE")[0] == 0
    code, _, err = node.run(*listed, "a,b,c", "--where", "s=ALIVE")
    assert (code, "w lacks b, c" in err) == (1, True)
    code, _, err = node.run("epic-wait", "http", f"{url}x", "--timeout", "1")
    assert (code, "404" in err) == (1, True)


def start(node: Node, name: str, script: str, user: str = "ada") -> None:
    assert node.run("epic-job", "start", name, "--user", user, "--", "bash", "-c", script) == (
        0,
        "",
        "",
    )


def test_a_job_runs_as_its_user_in_its_home(node: Node) -> None:
    start(node, "who", "id -un; id -Gn; pwd; umask; echo $HOME $USER; exit 7")
    code, out, err = node.run("epic-job", "follow", "who", "--from-start")
    assert code == 7
    assert err == ""
    assert out.split() == ["ada", "ada", "tenant", "/data/home/ada", "0002", "/home/ada", "ada"]


def test_every_byte_of_a_job_is_passed_on_in_its_stream(node: Node) -> None:
    start(node, "bytes", "seq 200000; seq 5 >&2; sleep 0.3; printf end")
    code, out, err = node.run("epic-job", "follow", "bytes", "--from-start")
    assert (code, err) == (0, "1\n2\n3\n4\n5\n")
    assert out == "".join(f"{number}\n" for number in range(1, 200001)) + "end"


def test_a_job_has_its_name_alone(node: Node) -> None:
    start(node, "once", "true")
    assert node.run("epic-job", "start", "once", "--user", "ada", "--", "true")[0] == 3
    assert node.run("epic-job", "follow", "never")[0] == 3
    assert node.run("epic-job", "start", "../up", "--user", "ada", "--", "true")[0] == 2
    assert node.run("epic-job", "start", "x", "--user", "nobody-here", "--", "true")[0] == 2


def test_cancel_ends_the_whole_group(node: Node) -> None:
    start(node, "tree", "sleep 300 & sleep 300 & wait")
    assert node.run("epic-job", "cancel", "tree")[0] == 0
    assert node.run("epic-job", "follow", "tree")[0] == 143
    assert node.run("pgrep", "-f", "sleep 300")[0] == 1


def test_cancel_kills_what_ignores_term(node: Node) -> None:
    start(node, "deaf", "trap '' TERM; while :; do sleep 0.1; done")
    began = time.monotonic()
    assert node.run("epic-job", "cancel", "deaf")[0] == 0
    assert 4 < time.monotonic() - began < 9
    assert node.run("epic-job", "follow", "deaf")[0] == 137


def test_a_command_that_is_not_there(node: Node) -> None:
    assert node.run("epic-job", "start", "none", "--user", "ada", "--", "no-such-command")[0] == 0
    code, _, err = node.run("epic-job", "follow", "none", "--from-start")
    assert (code, "no-such-command" in err) == (127, True)


def test_members_start_jobs_as_themselves_only(node: Node) -> None:
    code, _, _ = node.run("epic-job", "start", "own", "--user", "bob", "--", "id", user="bob")
    assert code == 0
    assert "bob" in node.run("epic-job", "follow", "own", "--from-start", user="bob")[1]
    code, _, err = node.run("epic-job", "start", "as", "--user", "ada", "--", "id", user="bob")
    assert (code, "only root" in err) == (2, True)


def test_output_of_a_job_is_its_users_business(node: Node) -> None:
    start(node, "secret", "echo secret")
    node.run("epic-job", "follow", "secret")
    assert node.run("cat", "/data/jobs/secret/stdout", user="bob")[0] != 0
    assert node.sh("cat /data/jobs/secret/stdout", user="ada") == "secret"


def test_jobs_are_listed(node: Node) -> None:
    start(node, "listed", "exit 4")
    node.run("epic-job", "follow", "listed")
    jobs = [json.loads(line) for line in node.sh("epic-job list").splitlines()]
    (job,) = (job for job in jobs if job["id"] == "listed")
    assert (job["user"], job["state"], job["rc"]) == ("ada", "done", 4)
    assert job["ended"] >= job["created"] - 1


def test_a_job_runs_as_root_on_behalf_of_its_user(node: Node) -> None:
    command = ["--user", "ada", "--sudo", "--", "sh", "-c", "id -un; pwd; echo $SUDO_USER"]
    assert node.run("epic-job", "start", "root", *command)[0] == 0
    assert node.run("epic-job", "follow", "root", "--from-start")[1] == "root\n/root\nada\n"
    # Its user sees what it printed, and does not start the like of it.
    assert node.sh("cat /data/jobs/root/stdout", user="ada") == "root\n/root\nada"
    assert node.run("epic-job", "start", "bobs", *command[2:], "--user", "bob", user="bob")[0] == 2


def test_a_job_is_ended_after_its_time_with_all_it_has_started(node: Node) -> None:
    script = "trap '' TERM; sleep 301 & wait; sleep 301"
    command = ["--user", "ada", "--timeout", "1", "--", "bash", "-c", script]
    assert node.run("epic-job", "start", "late", *command)[0] == 0
    began = time.monotonic()
    assert node.run("epic-job", "follow", "late")[0] in (124, 137)
    assert time.monotonic() - began < 15
    assert node.run("pgrep", "-f", "sleep 301")[0] == 1


def test_of_a_jobs_output_so_much_is_kept_and_it_goes_on(node: Node) -> None:
    script = "seq 100000; echo err >&2; exit 5"
    command = ["--user", "ada", "--limit", "1000", "--", "bash", "-c", script]
    assert node.run("epic-job", "start", "much", *command)[0] == 0
    code, out, err = node.run("epic-job", "follow", "much", "--from-start")
    assert (code, len(out), err) == (5, 1000, "err\n")
    assert json.loads(node.sh("epic-job show much"))["cut"] == ["stdout"]


def test_cancel_ends_what_has_left_the_group_too(node: Node) -> None:
    start(node, "daemons", "setsid sleep 302 & setsid -f sleep 302; wait")
    node.until("[ $(pgrep -fc '^sleep 302') -ge 2 ]")
    assert node.run("epic-job", "cancel", "daemons")[0] == 0
    assert node.run("epic-job", "follow", "daemons")[0] == 143
    assert node.run("pgrep", "-f", "^sleep 302")[0] == 1


def test_a_daemon_that_a_job_leaves_does_not_keep_it_from_ending(node: Node) -> None:
    start(node, "leaves", "setsid -f sleep 303; echo over")
    began = time.monotonic()
    code, out, _ = node.run("epic-job", "follow", "leaves", "--from-start")
    assert (code, out) == (0, "over\n")
    assert time.monotonic() - began < 10
    node.sh("pkill -f '^sleep 303'")


def test_a_job_opens_its_own_streams_by_their_names(node: Node) -> None:
    start(node, "names", "echo out >/dev/stdout; echo err >/dev/stderr")
    assert node.run("epic-job", "follow", "names", "--from-start") == (0, "out\n", "err\n")


def test_what_a_job_was_started_with_is_shown_to_nobody_else(node: Node) -> None:
    words = ["--user", "ada", "--env", "TOKEN=hush", "--", "sleep", "304"]
    assert node.run("epic-job", "start", "quiet", *words)[0] == 0
    shown = node.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", user="bob")
    assert "sleep 304" in shown
    assert "epic-job: /data/jobs/quiet" in shown
    assert "hush" not in shown
    assert node.run("epic-job", "cancel", "quiet")[0] == 0
    assert node.run("epic-job", "follow", "quiet")[0] == 143


@pytest.mark.parametrize(("code", "told"), [(9, 9), (0, 74)])
def test_a_job_that_fills_the_disk_leaves_its_result_and_is_no_success(
    make: Callable[..., Node], code: int, told: int
) -> None:
    node = make("base", tmpfs={"/data": "size=4m,mode=0755"})
    node.until("id ada")
    start(node, "fills", f"cat /dev/zero >~/all; echo lost; exit {code}")
    assert node.run("epic-job", "follow", "fills", "--from-start")[:2] == (told, "")
    assert json.loads(node.sh("epic-job show fills"))["cut"] == ["stdout", "stderr"]


def test_a_job_that_cannot_be_begun_is_told_to_who_starts_it(node: Node) -> None:
    broken = (
        "import sys; sys.path.insert(0, '/usr/local/lib/epic'); import job, supervisor; "
        "supervisor.supervise = None; sys.exit(job.start('/data/jobs/broken', 'ada', ['true'], []))"
    )
    code, _, err = node.run("python3", "-ISE", "-c", broken)
    assert (code, "it could not be begun" in err) == (1, True)


def test_a_script_without_a_first_line_is_bashs(node: Node) -> None:
    node.sh("echo 'echo ${BASH_VERSION%%.*} $1' >/tenant/plain; chmod 755 /tenant/plain")
    command = ["--user", "ada", "--", "/tenant/plain", "x"]
    assert node.run("epic-job", "start", "plain", *command)[0] == 0
    assert node.run("epic-job", "follow", "plain", "--from-start")[:2] == (0, "5 x\n")


def test_a_job_is_followed_from_any_place_and_tells_what_there_was(node: Node) -> None:
    start(node, "places", "printf 0123456789; printf abc >&2; exit 6")
    node.run("epic-job", "follow", "places")
    code, out, err = node.run("epic-job", "follow", "places", "--trailer", "--from", "4", "2")
    assert (code, out, err) == (6, "456789", "c\0done 6 10 3\n")


def test_a_script_comes_in_the_environment_and_its_first_output_at_once(node: Node) -> None:
    def run(name: str, script: str, *options: str) -> tuple[int, str, str]:
        words = ["--user", "ada", "--script", "x.sh", "--follow", "3000", *options]
        code, (out, err) = node.container.exec_run(
            ["epic-job", "start", name, *words, "--", "a b"], demux=True,
            environment={"EPIC_SCRIPT": base64.b64encode(script.encode()).decode()},
        )  # fmt: skip
        return code, (out or b"").decode(), (err or b"").decode()

    assert run("s1", 'echo "$0" "$1"; exit 3') == (
        0, "/data/jobs/s1/x.sh a b\n", "\0done 3 23 0\n"
    )  # fmt: skip
    assert run("s2", "#!/usr/bin/python3\nimport sys\nprint(sys.argv[1])")[1] == "a b\n"
    began = time.monotonic()
    code, out, err = run("s3", "echo first; sleep 600", "--follow", "300")
    assert (code, out, err) == (0, "first\n", "\0running 0 6 0\n")
    assert time.monotonic() - began < 5
    assert node.run("epic-job", "cancel", "s3")[0] == 0
    assert node.sh("stat -c '%a %U' /data/jobs/s1/x.sh") == "500 ada"


def test_a_shell_learns_where_it_is(node: Node) -> None:
    shown = dict(line.split("=", 1) for line in node.sh("epic-node", user="ada").splitlines())
    assert shown["role"]
    assert node.sh("env -i /usr/local/bin/epic-node role", user="ada") == shown["role"]
    code, _, err = node.run("epic-node", "nonsense")
    assert (code, "known are" in err) == (1, True)


def test_the_sites_certificates_are_trusted(node: Node) -> None:
    assert int(node.sh("grep -c BEGIN /etc/ssl/certs/ca-certificates.crt")) > 100
    assert node.sh("echo $SSL_CERT_FILE") == "/etc/ssl/certs/ca-certificates.crt"
