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

from finsent.errors import InputError
from finsent.runs import new_run_name

if TYPE_CHECKING:
    from ray.job_submission import JobStatus, JobSubmissionClient

POLL_SECONDS = 0.5
EXCLUDES = ["artifacts", "build", "tests", "*.whl"]  # of the uploaded working directory


def submit(address: str, job: str, arguments: Sequence[str]) -> str:
    """Submit a job from the current directory, which Ray uploads.

    A job with `run.name=NAME` has the id `JOB-NAME`. While it runs, and once it has succeeded, a
    second submission returns the same id and starts nothing. After a failure it is submitted anew
    and resumes.

    Args:
        address: URL of the cluster's dashboard.
        job: e.g. train.
        arguments: of the job: config files and key=value.

    Returns:
        the id of the job on the cluster.

    Raises:
        InputError: no cluster answers, or it refuses the job.
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
        raise InputError(f"cluster: {address}: refuses the job: {_one_line(error)}") from None


def metadata(job: str, arguments: Sequence[str]) -> dict[str, str]:
    """Return what the dashboard shows of a job: its name, its config files and its settings."""
    files = [argument for argument in arguments if "=" not in argument]
    settings = dict(
        argument.split("=", 1) for argument in arguments if re.match(r"[a-z_.0-9]+=", argument)
    )
    return {"job": job, "configs": " ".join(files), **settings}


def follow(address: str, job_id: str) -> int:
    """Copy a job's log to stdout and stderr until the job ends.

    Returns:
        the job's exit code; 1 where the job was stopped or its process was lost.
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
        InputError: the cluster has no such job.
    """
    client = _client(address)
    _status(client, job_id)
    client.stop_job(job_id)
    while not (status := _status(client, job_id)).is_terminal():
        time.sleep(POLL_SECONDS)
    return str(status.name)


def jobs(address: str) -> Iterator[tuple[str, str, str]]:
    """Yield id, status and command of each submitted job, oldest first."""
    details = (each for each in _client(address).list_jobs() if each.submission_id)
    for each in sorted(details, key=lambda each: each.start_time or 0):
        yield each.submission_id or "", each.status.name, each.entrypoint


async def _copy_log(client: JobSubmissionClient, job_id: str) -> None:
    async for part in client.tail_job_logs(job_id):
        sys.stdout.write(part)
        sys.stdout.flush()


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient  # imports Ray: 1 s

    logging.getLogger("ray").setLevel(logging.WARNING)  # of uploads and sockets
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cluster: {address}: no Ray dashboard answers ({_one_line(error)}). Start a cluster "
            "by `make cluster-up`, or set RAY_API_SERVER_ADDRESS, RAY_AUTH_MODE=token and"
            " RAY_AUTH_TOKEN_PATH."
        ) from None


def _status(client: JobSubmissionClient, job_id: str) -> JobStatus:
    try:
        return client.get_job_status(job_id)
    except RuntimeError as error:
        raise InputError(f"cluster: {job_id!r}: no such job ({_one_line(error)}).") from None


def _attempts(client: JobSubmissionClient, job_id: str) -> list[str]:
    """Return the ids of a run's submissions, oldest first."""
    pattern = re.compile(re.escape(job_id) + r"(?:\.(\d+))?")
    matches = [pattern.fullmatch(each.submission_id or "") for each in client.list_jobs()]
    numbered = sorted((int(match[1] or 1), match[0]) for match in matches if match)
    return [name for _, name in numbered]


def _run_name(arguments: Sequence[str]) -> str | None:
    names = [
        argument.partition("=")[2] for argument in arguments if argument.startswith("run.name=")
    ]
    return names[-1] if names else None


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
