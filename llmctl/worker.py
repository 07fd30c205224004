"""One rank of a training job: `python -m llmctl.launcher ... -m llmctl.worker JOB_FILE [STEPS]`; with STEPS, so many are
measured and nothing is trained."""

import sys
from contextlib import nullcontext
from pathlib import Path

from llmctl import events
from llmctl.errors import EXIT_FAILED, Interrupted, UserError
from llmctl.interrupts import arriving, raise_on_signals
from llmctl.train.distributed import launched_rank, outcome_file
from llmctl.train.job import TrainJob


def main(job_file: Path, steps: int | None) -> int:
    from llmctl.train.bench import measure_to
    from llmctl.train.run import run_job

    raise_on_signals()
    job = TrainJob.read(job_file)
    try:
        with arriving(), events.listening(hand_on) if launched_rank() == 0 else nullcontext():
            run_job(lambda: job) if steps is None else measure_to(job, steps)
    except Interrupted as stop:
        return stop.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        if not lost_a_peer(error):
            raise
        print(f"error: another rank is gone: {str(error).splitlines()[0]}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def lost_a_peer(error: RuntimeError) -> bool:
    """Whether a collective call failed since another rank has ended; that one's message is the one to read."""
    from torch.distributed import DistBackendError

    return isinstance(error, DistBackendError) or "gloo" in str(error) or "by peer" in str(error)


def hand_on(event: events.Event) -> None:
    """Give an event to the process that started the ranks, which shows and records it."""
    sys.stdout.write(events.to_line(event))
    sys.stdout.flush()


if __name__ == "__main__":
    file = Path(sys.argv[1])
    code = EXIT_FAILED
    try:
        code = main(file, int(sys.argv[2]) if len(sys.argv) > 2 else None)
    finally:
        if launched_rank() == 0:
            outcome_file(file).write_text(str(code))
    sys.exit(code)
