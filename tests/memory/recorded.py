"""What tools have printed on real machines, and a stand-in for NVIDIA's library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any


def recorded(name: str) -> str:
    """One answer of one tool."""
    return (Path(__file__).parent / "recordings" / f"{name}.txt").read_text()


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


def nvml(gpus: list[Any]) -> Any:
    """As the module `pynvml`. A GPU is its memory, or the error that asking for it raises."""

    def memory(gpu: Any) -> Any:
        if isinstance(gpu, Exception):
            raise gpu
        return gpu

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NVMLError_NotSupported,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=lambda index: gpus[index],
        nvmlDeviceGetName=lambda gpu: "some GPU",
        nvmlDeviceGetUUID=lambda gpu: f"GPU-{gpus.index(gpu)}",
        nvmlDeviceGetMemoryInfo=memory,
    )
