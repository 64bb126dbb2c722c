"""Submit finsent's jobs to a Ray cluster, follow their logs, and return their exit codes."""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from finsent.errors import InputError, one_line
from finsent.runs import new_run_name

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

POLL_SECONDS = 0.5
EXCLUDES = ["artifacts", "build", "tests", "*.whl"]  # of the uploaded working directory


def submit(address: str, job: str, arguments: Sequence[str]) -> str:
    """Submit a job with the current directory, which Ray uploads.

    A job with `run.name=NAME` has the id `JOB-NAME`. While the job runs and after its success, a
    second submission starts nothing and returns the same id. After a failure, a new submission gets
    the id `JOB-NAME.2` and resumes the run.

    Args:
        address: URL of the cluster's dashboard.
        job: name of the job, e.g. train.
        arguments: config files and key=value.

    Returns:
        the id of the job on the cluster.

    Raises:
        InputError: no cluster answers, or the cluster refuses the job.
    """
    client = _client(address)
    name = _run_name(arguments)
    job_id = new_run_name(job) if name is None else f"{job}-{name}"
    if attempts := _attempts(client, job_id):
        if _status(client, attempts[-1]).name not in ("FAILED", "STOPPED"):
            return attempts[-1]
        job_id = f"{job_id}.{len(attempts) + 1}"
    command = shlex.join(["python", "-m", f"ray_jobs.{job}", *arguments])
    try:
        return client.submit_job(
            entrypoint=command,
            submission_id=job_id,
            runtime_env={"working_dir": ".", "excludes": EXCLUDES},
            metadata=metadata(job, arguments),
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cluster: {address}: the cluster refuses the job: {one_line(error)}"
        ) from None


def metadata(job: str, arguments: Sequence[str]) -> dict[str, str]:
    """Return the metadata of a job on the dashboard: its name, config files and settings."""
    files = [argument for argument in arguments if "=" not in argument]
    settings = dict(
        argument.split("=", 1) for argument in arguments if re.match(r"[a-z_.0-9]+=", argument)
    )
    return {"job": job, "configs": " ".join(files), **settings}


def follow(address: str, job_id: str) -> int:
    """Copy a job's log to stdout and stderr until the job ends.

    Returns:
        the job's exit code; 1 if the job was stopped or lost its process; 130 after Ctrl-C, which
        does not end the job.
    """
    client = _client(address)
    try:
        asyncio.run(_copy_log(client, job_id))
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\n{job_id} continues on the cluster. "
            f"`python -m cluster logs {job_id}` follows it, `python -m cluster stop {job_id}` "
            "stops it.\n"
        )
        return 130
    while not (status := _status(client, job_id)).is_terminal():
        time.sleep(POLL_SECONDS)
    code = client.get_job_info(job_id).driver_exit_code
    if status.name == "SUCCEEDED":
        return 0
    return 1 if code is None or code <= 0 else code


def stop(address: str, job_id: str) -> str:
    """Stop a job and wait for its end.

    Returns:
        the job's last status.

    Raises:
        InputError: the cluster does not know the job.
    """
    client = _client(address)
    _status(client, job_id)
    client.stop_job(job_id)
    while not (status := _status(client, job_id)).is_terminal():
        time.sleep(POLL_SECONDS)
    return str(status.name)


def jobs(address: str) -> Iterator[tuple[str, str, str]]:
    """Yield id, status and command of each submitted job, oldest first."""
    submitted = (job for job in _client(address).list_jobs() if job.submission_id)
    for job in sorted(submitted, key=lambda job: job.start_time or 0):
        yield job.submission_id or "", job.status.name, job.entrypoint


async def _copy_log(client: JobSubmissionClient, job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient  # imports Ray: 1 s

    logging.getLogger("ray").setLevel(logging.WARNING)  # of uploads and sockets
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cluster: {address}: no Ray dashboard answers ({one_line(error)}). Start a cluster "
            "by `make cluster-up`, or set RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE=token and"
            " RAY_AUTH_TOKEN_PATH."
        ) from None


def _status(client: JobSubmissionClient, job_id: str) -> JobStatus:
    try:
        return client.get_job_status(job_id)
    except RuntimeError as error:
        raise InputError(
            f"cluster: {job_id!r}: no such job ({one_line(error)}). "
            "`python -m cluster status` lists the jobs."
        ) from None


def _attempts(client: JobSubmissionClient, job_id: str) -> list[str]:
    """Return the ids of the submissions of a job id, oldest first."""
    pattern = re.compile(re.escape(job_id) + r"(?:\.(\d+))?")
    matches = [pattern.fullmatch(job.submission_id or "") for job in client.list_jobs()]
    numbered = sorted((int(match[1] or 1), match[0]) for match in matches if match)
    return [submission_id for _, submission_id in numbered]


def _run_name(arguments: Sequence[str]) -> str | None:
    names = [
        argument.partition("=")[2] for argument in arguments if argument.startswith("run.name=")
    ]
    return names[-1] if names else None
