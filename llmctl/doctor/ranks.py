"""A rank of the trial of two: `python -m llmctl.launcher ... -m llmctl.doctor.ranks`. Adds its number to the others'."""

import os
from datetime import timedelta


def main() -> None:
    import torch
    from torch import distributed

    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    number = torch.tensor(float(os.environ["RANK"]) + 1)
    distributed.all_reduce(number)
    print(f"sum {float(number)}", flush=True)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
