"""torch's launcher of ranks, without its own traceback where a rank has failed or a signal has come: what there is to say
stands above it. `python -m llmctl.launcher` takes the arguments of `torchrun`."""

import sys


def main(arguments: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    try:
        run(arguments)
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as failed:
        return failed.get_first_failure()[1].exitcode or 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
