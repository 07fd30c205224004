"""Tiny real uses of what stands on torch: devices, attention by every backend, a step of DeepSpeed, LoRA, 4-bit weights."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from llmctl.doctor.trial import BACKENDS, Tried

LENGTHS, HEADS, HEAD_SIZE, WINDOW = (20, 12), 2, 64, 8
RANKS_SECONDS = 80.0


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def try_torch() -> Tried:
    import torch

    from llmctl.model.precision import multiplies_bfloat16

    x = torch.ones(4, 4, requires_grad=True)
    (x @ x).sum().backward()
    if x.grad is None or not bool((x.grad == 8).all()):
        return Tried("broken", "the gradient of a product is wrong")
    builds = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    build = next((f"with {name} {version}" for name, version in builds.items() if version), "without CUDA")
    told = "multiplies bf16" if multiplies_bfloat16(device()) else "would emulate bf16, and trains in fp32"
    return Tried("ok", f"built {build}; {device()} {told}")


def try_gpu() -> Tried:
    """Names, memory and compute capability of the GPUs, and a product on each."""
    import torch

    driver = driver_version()
    if not torch.cuda.is_available():
        return without_gpu(driver)
    told = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        x = torch.ones(16, 16, device=f"cuda:{index}", dtype=torch.bfloat16)
        if float((x @ x).sum()) != 4096.0:
            return Tried("broken", f"a product on GPU {index} ({properties.name}) is wrong")
        capability = f"{properties.major}.{properties.minor}"
        told.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {capability}")
    alike = ", ".join(f"{told.count(one)} x {one}" if told.count(one) > 1 else one for one in dict.fromkeys(told))
    return Tried("ok", f"{alike}; driver {driver or 'unknown'}")


def without_gpu(driver: str | None) -> Tried:
    import torch

    if torch.backends.mps.is_available():
        return Tried("missing", "Apple's GPU (MPS) is not used: everything runs on the processor")
    if driver is None:
        return Tried("missing", "none; everything runs on the processor")
    if torch.version.cuda is None:
        remedy = "install a build of torch with CUDA: pytorch.org/get-started"
        return Tried("warning", f"driver {driver} is there, and this torch is built without CUDA", remedy)
    try:
        torch.cuda.init()
        why = "CUDA_VISIBLE_DEVICES hides it" if torch.cuda.device_count() == 0 else "no reason is given"
    except (RuntimeError, AssertionError) as error:
        why = (str(error).splitlines() or ["no reason is given"])[0]
    return Tried(
        "warning", f"driver {driver} is there, and torch cannot use it: {why}", "a newer driver, or an older CUDA build of torch"
    )


def driver_version() -> str | None:
    """Of NVIDIA's driver, None without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (asked.stdout.split() or [None])[0] if asked.returncode == 0 else None


def try_attention(backend: str) -> Tried:
    """Two packed documents with a window, forward and backward, against attention document by document in fp32."""
    import torch

    from llmctl_kernels import attention

    known = next(name for name in get_args(attention.Backend) if name == backend)
    if (why := attention.missing(known, device())) is not None:
        return Tried("broken" if why.startswith("does not run") and "ModuleNotFound" not in why else "missing", why)
    kind = torch.float32 if backend == "per_document" and device() == "cpu" else torch.bfloat16
    results = [_attend(torch.float32, "per_document"), _attend(kind, known)]
    apart = max(float((mine - other).abs().max()) for mine, other in zip(*results, strict=True))
    if not apart < 0.1:
        return Tried("broken", f"forward and backward differ by {apart:.2g} from plain attention in fp32")
    return Tried("ok", f"forward and backward in {str(kind).removeprefix('torch.')} on {device()}, {attention.described(known)}")


def _attend(kind: Any, backend: Any) -> list[Any]:
    """The output and the gradients of queries, keys and values, in fp32 on the CPU."""
    import torch

    from llmctl_kernels.attention import packed_attention

    torch.manual_seed(1)
    inputs = [torch.randn(sum(LENGTHS), HEADS, HEAD_SIZE).to(device(), kind).requires_grad_() for _ in range(3)]
    boundaries = torch.tensor([0, LENGTHS[0], sum(LENGTHS)], dtype=torch.int32, device=device())
    query, key, value = inputs
    out = packed_attention(query, key, value, boundaries, max(LENGTHS), WINDOW, backend=backend)
    out.float().square().mean().backward()
    gradients = [tensor.grad for tensor in inputs if tensor.grad is not None]
    return [tensor.detach().float().cpu() for tensor in (out, *gradients)]


def try_transformers() -> Tried:
    import torch

    from llmctl.model.load import quieten

    quieten()
    from transformers import Olmo3Config, Olmo3ForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids = torch.arange(4)[None]
    loss = Olmo3ForCausalLM(Olmo3Config(**sizes, pad_token_id=0))(input_ids=ids, labels=ids).loss
    loss.backward()
    return Tried("ok", "an Olmo 3 computes gradients") if bool(loss.isfinite()) else Tried("broken", f"a loss of {loss}")


def try_peft() -> Tried:
    import torch

    from llmctl.model.load import quieten

    quieten()
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), LoraConfig(r=2, target_modules=["0"]))  # pyright: ignore
    model(torch.ones(1, 4)).sum().backward()
    return Tried("ok", "LoRA computes gradients")


def try_datasets() -> Tried:
    from datasets import Dataset

    rows = Dataset.from_dict({"x": [1, 2]})
    return Tried("ok", "makes rows") if rows[1] == {"x": 2} else Tried("broken", "a row is not what was written")


def try_deepspeed() -> Tried:
    """A step of ZeRO stage 1 in this process, and what its offloaded optimizer would be built by."""
    import torch

    from llmctl.train.deepspeed_engine import import_deepspeed
    from llmctl.train.distributed import join_process_group
    from llmctl.train.prepare import missing_compiler

    join_process_group()
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, *_ = import_deepspeed().initialize(model=layer, optimizer=optimizer, config=settings)
    before = layer.weight.detach().clone()
    engine.backward(engine(torch.ones(1, 4, device=engine.device)).square().sum())
    engine.step()
    if bool((layer.weight == before).all()):
        return Tried("broken", "a step of ZeRO stage 1 changes nothing")
    from deepspeed.ops.op_builder import CPUAdamBuilder  # pyright: ignore[reportAttributeAccessIssue]

    why = missing_compiler("cpu") or ("" if CPUAdamBuilder().is_compatible() else "DeepSpeed finds something missing")
    return Tried("ok", "a step of ZeRO stage 1; offload " + (f"cannot be compiled: {why}" if why else "can be compiled"))


def try_ranks() -> Tried:
    """Two ranks of torch's launcher, as `--processes 2` starts them, sum a number by gloo."""
    ranks = ["-m", "llmctl.launcher", "--standalone", "--nproc-per-node=2", "-m", "llmctl.doctor.ranks"]
    asked = subprocess.run(
        [sys.executable, *ranks],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=RANKS_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    if asked.returncode == 0 and "sum 3.0" in asked.stdout:
        return Tried("ok", "torch's launcher starts them, and they sum a number")
    said = [line.strip() for line in (asked.stdout + asked.stderr).splitlines() if "Error" in line]
    remedy = "GLOO_SOCKET_IFNAME=lo where the machine's own name leads nowhere; one rank needs none of it"
    return Tried("broken", said[-1] if said else f"the launcher ends with {asked.returncode}", remedy)


def try_bitsandbytes() -> Tried:
    import torch

    packed: Any = __import__("bitsandbytes").nn
    if device() == "cpu":
        return Tried("ok", "imports; 4-bit weights need an NVIDIA GPU")
    layer = packed.Linear4bit(64, 64, compute_dtype=torch.bfloat16, quant_type="nf4").to("cuda")
    x = torch.ones(1, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    layer(x).float().sum().backward()
    return Tried("ok", "4-bit weights forward and backward") if x.grad is not None else Tried("broken", "no gradient comes back")


def try_triton() -> Tried:
    import torch

    from llmctl_kernels import runtime

    __import__("triton")
    if device() == "cpu":
        return Tried("ok", "imports; there is no GPU for its kernels")
    if (why := runtime.missing("cuda")) is not None:
        return Tried("broken", why)
    from llmctl_kernels.rms_norm import plain_rms_norm, rms_norm

    x, weight = torch.randn(4, 64, device="cuda"), torch.ones(64, device="cuda")
    apart = float((rms_norm(x, weight, 1e-6) - plain_rms_norm(x, weight, 1e-6)).abs().max())
    return Tried("ok", "our RMSNorm kernel is right") if apart < 1e-3 else Tried("broken", f"RMSNorm is off by {apart:.2g}")


def try_flash_attention() -> Tried:
    __import__("flash_attn")
    return Tried("ok", "imports; tried as attention: flash_attention_2")


def try_tensorboard() -> Tried:
    from torch.utils.tensorboard.writer import SummaryWriter

    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        writer.add_scalar("x", 1.0, 1)
    return Tried("ok", "writes a curve")


TRIALS: dict[str, Callable[[], Tried]] = {
    "torch": try_torch,
    "GPU": try_gpu,
    **{f"attention: {backend}": partial(try_attention, backend) for backend in BACKENDS},
    "transformers": try_transformers,
    "peft": try_peft,
    "datasets": try_datasets,
    "deepspeed": try_deepspeed,
    "two gloo ranks": try_ranks,
    "bitsandbytes": try_bitsandbytes,
    "triton": try_triton,
    "flash-attn": try_flash_attention,
    "tensorboard": try_tensorboard,
}
