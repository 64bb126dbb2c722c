"""Start a Ray cluster on this machine, and submit jobs: `python -m cluster COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import nodes, submission
from finsent.adapters.ray_core import ENVIRONMENT
from finsent.errors import UserError
from finsent.stdout import write_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        the exit code: the job's for `submit` and `logs`, 2 for a wrong argument or no cluster.
    """
    options = parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    root = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start a head, and workers that join it")
    up.add_argument(
        "--workers", type=_count, default=1, help="number of nodes next to the head (default 1)"
    )
    up.add_argument("--cpus", type=_count, default=2, help="logical CPUs per node (default 2)")
    up.set_defaults(run=_up)

    commands.add_parser("down", help="stop the cluster").set_defaults(run=_down)
    commands.add_parser("status", help="list nodes and jobs").set_defaults(run=_status)

    submit = commands.add_parser("submit", help="submit a job and follow its log")
    submit.add_argument("--no-wait", action="store_true", help="print the id and exit")
    submit.add_argument("job", help="e.g. train")
    submit.add_argument("arguments", nargs=argparse.REMAINDER, help="config files, key=value")
    submit.set_defaults(run=_submit)

    logs = commands.add_parser("logs", help="follow a job's log")
    logs.add_argument("id", help="id of the job, as `status` lists it")
    logs.set_defaults(run=_logs)
    stop = commands.add_parser("stop", help="stop a job")
    stop.add_argument("id", help="id of the job, as `status` lists it")
    stop.set_defaults(run=_stop)
    return root


def _up(options: argparse.Namespace) -> int:
    directory = nodes.cluster_directory()
    record = nodes.start(directory, options.workers, options.cpus, ENVIRONMENT)
    variables = nodes.environment(record).items()
    exports = "".join(f"export {name}={value}\n" for name, value in variables)
    (directory / "env.sh").write_text(exports)
    _print_lines(
        f"{len(record.nodes)} nodes, {options.cpus} CPUs each. `make cluster-down` stops them.",
        f"dashboard   {record.dashboard} (requires the token in {record.token_file})",
        "submit      make submit JOB=pipeline ARGS=debug",
        f"in a shell  . {directory}/env.sh  # then `finsent JOB` and Ray's commands use it",
    )
    return 0


def _down(_: argparse.Namespace) -> int:
    _print_lines(f"stopped {nodes.stop(nodes.cluster_directory())} nodes")
    return 0


def _status(_: argparse.Namespace) -> int:
    address = _dashboard()
    _print_lines(f"dashboard: {address}")
    if (record := nodes.current(nodes.cluster_directory())) and record.dashboard == address:
        alive = nodes.alive_nodes(address, Path(record.token_file))
        _print_lines(f"nodes:     {len(alive)} of {len(record.nodes)} alive")
    for job_id, status, command in submission.jobs(address):
        _print_lines(f"{status:10} {job_id}  {command}")
    return 0


def _submit(options: argparse.Namespace) -> int:
    address = _dashboard()
    job_id = submission.submit(address, options.job, options.arguments)
    sys.stderr.write(f"{job_id} at {address}\n")
    if options.no_wait:
        _print_lines(job_id)
        return 0
    return submission.follow(address, job_id)


def _logs(options: argparse.Namespace) -> int:
    return submission.follow(_dashboard(), options.id)


def _stop(options: argparse.Namespace) -> int:
    _print_lines(f"{options.id}: {submission.stop(_dashboard(), options.id)}")
    return 0


def _dashboard() -> str:
    """Return the dashboard's URL: RAY_API_SERVER_ADDRESS, or that of this machine's cluster.

    Sets the environment of this process for the cluster of this machine.
    """
    if address := os.environ.get("RAY_API_SERVER_ADDRESS"):
        return address
    record = nodes.current(nodes.cluster_directory())
    if record is None:
        raise UserError(
            "cluster: no cluster is running on this machine. Run `make cluster-up`, or set "
            "RAY_API_SERVER_ADDRESS to the URL of a dashboard."
        )
    os.environ.update(nodes.environment(record))
    return record.dashboard


def _print_lines(*lines: str) -> None:
    for line in lines:
        write_line(line, sys.stdout)


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= 64:
        raise argparse.ArgumentTypeError(f"{count} is not between 0 and 64")
    return count


if __name__ == "__main__":
    sys.exit(main())
