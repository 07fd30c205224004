"""One rank of a training job: `python -m torch.distributed.run ... -m llmctl.worker JOB_FILE`."""

import sys
from pathlib import Path

from llmctl.errors import EXIT_FAILED, Interrupted, UserError
from llmctl.interrupts import raise_on_signals
from llmctl.train.distributed import launched_rank, outcome_file
from llmctl.train.job import TrainJob


def main(job_file: Path) -> int:
    from llmctl.runs.artifact import Artifact
    from llmctl.train.run import run_job
    from llmctl.views.progress import screen
    from llmctl.views.stage import recorded_on

    raise_on_signals()
    job = TrainJob.read(job_file)
    try:
        if launched_rank() == 0:
            with screen() as shown, recorded_on(shown, job.tensorboard)(Artifact(job.path)):
                run_job(lambda: job)
        else:
            run_job(lambda: job)
    except Interrupted as stop:
        return stop.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    file = Path(sys.argv[1])
    code = EXIT_FAILED
    try:
        code = main(file)
    finally:
        if launched_rank() == 0:
            outcome_file(file).write_text(str(code))
    sys.exit(code)
