"""A job against what it names: its template, its tenant and members, its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from epic_runner import programs
from epic_runner.programs import JobRequest
from epic_runner.spec import checks
from epic_runner.spec.checks import Checked
from epic_runner.spec.models import Job, Template
from epic_runner.spec.reader import Path, Problem, path_text, quoted
from epic_runner.spec.resolve import Context

# The keys of `submit` that list what goes along with the program.
CARRIED = ("py_files", "jars", "files", "archives")


def file_path(checked: Checked, file: str) -> str:
    """Return the path of a job's file: inside the nodes, or of this machine.

    A relative one begins in the folder of the file that holds the job, so that a job means the same
    wherever it is run from.
    """
    if programs.is_inside(file):
        return file
    return str((checked.document.source.folder / file).absolute())


def request_of(checked: Checked) -> JobRequest:
    """Return what a job that is right runs."""
    job = checked.model
    assert isinstance(job, Job)  # noqa: S101 - for the type checker: callers have looked
    submit = job.submit
    return JobRequest(
        file=file_path(checked, submit.file),
        arguments=submit.args,
        conf=dict(submit.conf),
        py_files=tuple(file_path(checked, file) for file in submit.py_files),
        jars=tuple(file_path(checked, file) for file in submit.jars),
        files=tuple(file_path(checked, file) for file in submit.files),
        archives=tuple(file_path(checked, file) for file in submit.archives),
        main_class=submit.main_class or "",
        name=submit.name or job.name,
        environment=dict(submit.env),
        on=submit.on or "",
        timeout_seconds=job.timeout or 0,
        title=job.name,
    )


def fits(wanted: str, version: str) -> bool:
    """Whether a version is the one wanted, or one of those that begin so: `3.5` takes `3.5.9`."""
    return f"{version}.".startswith(f"{wanted}.")


def version_refusal(wanted: str | None, app: str, version: str) -> tuple[str, str] | None:
    """Return why a job cannot run on clusters of an app's version, and what to do; None if it can.

    Args:
        wanted: The job's `spark_version`.
        app: The cluster's app.
        version: The app's version.
    """
    if wanted is None or fits(wanted, version):
        return None
    return (
        f"The job needs Spark {wanted}, but the cluster has {app} {version}.",
        f"Run it on a cluster of {app}@{wanted}, or change submit.spark_version.",
    )


def check_job(
    context: Context, checked: Checked, problems: list[Problem], *, tenant: str | None = None
) -> None:
    """Check what a job names; what is not there is added to `problems`.

    Parts of it that are broken by themselves are left alone, and so is what only the store knows.

    Args:
        context: What the job is checked against.
        checked: The job.
        problems: Takes what is wrong.
        tenant: The tenant's name (`--tenant`) that takes the place of the job's own.
    """
    job = checked.model
    if not isinstance(job, Job):
        return
    found = [
        *_template_mistakes(context, job),
        *_tenant_mistakes(context, job, tenant),
        *_file_mistakes(checked, job),
    ]
    problems += [
        Problem(checked.document.place(path), message, hint)
        for path, message, hint in found
        if checked.sound(*path)
    ]


_WHERE_FILES_ARE = (
    "A path begins in the folder of the file that holds the job; inside the nodes, with /tenant/ "
    "or /data/."
)

_Mistakes = Iterator[tuple[Path, str, str | None]]


def _template_of(context: Context, job: Job) -> Template | None:
    found = context.found.get(("Template", str(job.cluster.template)))
    return found.model if found is not None and isinstance(found.model, Template) else None


def _template_mistakes(context: Context, job: Job) -> _Mistakes:
    wanted = job.cluster.template
    if wanted is None:
        return
    if ("Template", wanted) not in context.found:
        names = [name for kind, name in context.found if kind == "Template"]
        hint = checks.suggestion(wanted, names) or "Give the file that holds it as well."
        message = f"There is no Template {quoted(wanted)} in these files."
        yield ("cluster", "template"), message, hint
    template = _template_of(context, job)
    app = context.catalog.get(template.app_name) if template else None
    if app is not None:
        refusal = version_refusal(job.submit.spark_version, app.name, app.version)
        if refusal:
            yield ("submit", "spark_version"), *refusal


def _tenant_mistakes(context: Context, job: Job, option: str | None) -> _Mistakes:
    template = _template_of(context, job)
    others = template.tenant if template else None
    if not option and job.tenant and others and job.tenant != others:
        yield ("tenant",), f"The job's tenant is {job.tenant}, but its template's {others}.", None
    name = option or job.tenant or others
    if name is None:
        return
    names = context.names("Tenant")
    if name == job.tenant and name not in names and context.known_tenants is not None:
        yield ("tenant",), f"There is no tenant {quoted(name)}.", checks.one_of(name, names)
    members = context.members(name)
    if members is not None and job.user is not None and job.user not in members:
        message = f"{job.user} is not a member of the tenant {name}."
        yield ("user",), message, checks.one_of(job.user, members)


def _file_mistakes(checked: Checked, job: Job) -> _Mistakes:
    if job.submit.args and not programs.takes_arguments(job.submit.file):
        hint = "Give it variables, by submit.env, and read them with os.environ."
        yield ("submit", "args"), "submit.args: a notebook takes no arguments.", hint
    files: list[tuple[Path, str]] = [(("submit", "file"), job.submit.file)]
    for key in CARRIED:
        places = [("submit", key, position) for position in checked.kept("submit", key)]
        files += zip(places, getattr(job.submit, key), strict=False)
    files = [(path, programs.archive_of(file)[0]) for path, file in files]
    if name := programs.called_alike(file for _, file in files):
        path = next(path for path, file in reversed(files) if FilePath(file).name == name)
        message = f"submit.{path[1]}: two files of the job are called {name}."
        yield path[:2], message, "Rename one of them."
    for path, file in files:
        found = file_path(checked, file)
        if not programs.is_inside(file) and not FilePath(found).is_file():
            yield path, f"{path_text(path)}: there is no file {found}.", _WHERE_FILES_ARE
