"""A job on a device: long work in small pieces, which the device does while it answers.

    job = board.train_job(2000, every=200, patience=5)
    job.wait(lambda status: print(status.done, status.right, "of", status.total))

A job runs on when the host goes away; a new connection finds it by its number (`board.job(1)`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fieldloop.errors import DeviceError, FieldloopError
from fieldloop.link.client import Client, Fields
from fieldloop.link.replies import JobStatus, ReplyFields, job_status

JOB = 14
Watcher = Callable[[JobStatus], None]

_POLL_S = 0.1
_ANSWER_S = 60.0  # a piece of work is done before the device answers


class Job:
    """One job on one device."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self.number = number

    @classmethod
    def start(cls, client: Client, fields: Fields) -> Job:
        """Has the device begin `fields["do"]`."""
        what = f"start the job {fields['do']!r}"
        reply = client.write(JOB, fields, what=what, timeout=_ANSWER_S)
        return cls(client, ReplyFields(what, reply).integer("job"))

    def status(self) -> JobStatus:
        return job_status(
            self._client.read(JOB, {"job": self.number}, what="job status", timeout=_ANSWER_S)
        )

    def pause(self) -> None:
        """Stops between two steps, for as long as one likes; what was learned can be committed."""
        self._control("pause")

    def resume(self) -> None:
        self._control("resume")

    def cancel(self) -> None:
        """Ends it between two steps; what was learned so far stays in use."""
        self._control("cancel")

    def _control(self, do: str) -> None:
        self._client.write(
            JOB, {"do": do, "job": self.number}, what=f"{do} the job", timeout=_ANSWER_S
        )

    def wait(self, watch: Watcher | None = None, *, poll_s: float = _POLL_S) -> JobStatus:
        """The status at the end; `watch` sees each one on the way. LinkError: the job failed.

        When `watch` raises, or Ctrl-C comes, the job is cancelled: the device keeps what it has
        learned so far, and can commit it.
        """
        try:
            while True:
                status = self.status()
                if watch is not None:
                    watch(status)
                if status.state == "failed":
                    raise FieldloopError(f"job {self.number} failed: {status.message}")
                if not status.active:
                    return status
                time.sleep(poll_s)
        except DeviceError:
            raise  # nobody there to cancel it
        except BaseException:
            self.cancel()
            raise
