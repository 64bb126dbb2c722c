"""The text of a job's `--help`."""

from __future__ import annotations

import textwrap

from finsent.config import help_lines
from ray_jobs._job import Job
from ray_jobs._results import result_lines

_WIDTH = 100


def help_text(job: Job, command: str) -> str:
    """Return usage, summary, the keys of the result, and the settings that a job uses.

    Args:
        command: how the user started the job, e.g. `finsent train`.
    """
    arguments = f" {job.arguments}" if job.arguments else ""
    flags = "".join(f" [{flag}]" for flag in job.flags)
    return "\n".join(
        [
            f"usage: {command} [CONFIG.yaml ...] [key=value ...]{flags}{arguments}",
            "",
            *(textwrap.fill(line, _WIDTH) for line in job.summary.splitlines()),
            "",
            "Settings come from the defaults below, then the files from left to right, then",
            "key=value. --print-config prints the outcome and exits. Progress goes to stderr; the",
            "last line on stdout is a JSON object. Exit code: 0 done, 2 bad config or input, 1",
            "anything else.",
            "",
            *result_lines(job.result, job.keeps_run),
            "",
            "Keys, as KEY=DEFAULT:",
            *help_lines(job.settings, job.sections),
            "",
            "Keys of the other sections are checked, too, so that one file serves every job.",
        ]
    )
