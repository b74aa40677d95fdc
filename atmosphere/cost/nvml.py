"""NVIDIA GPUs through the driver's own library (nvidia-ml-py). No driver, no GPU, no library: no error, a reason."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuReading:
    """How busy the GPUs are."""

    busy: float | None = None
    """Their mean, 0..1."""
    names: tuple[str, ...] = ()
    reason: str = ""
    """Why *busy* is not known."""


class Nvml:
    """Opens the library at the first reading and stays with it."""

    def __init__(self) -> None:
        self._library: Any = None
        self._handles: list[Any] = []
        self._names: tuple[str, ...] = ()
        self._failed = ""

    def __repr__(self) -> str:
        return f"<Nvml {len(self._names)} GPUs{', ' + self._failed if self._failed else ''}>"

    def read(self) -> GpuReading:
        """How busy the GPUs are now; blocks as long as the driver does."""
        if self._library is None and not self._failed:
            self._failed = self._open()
        if self._failed:
            return GpuReading(reason=self._failed)
        library, busy = self._library, []
        for handle in self._handles:
            try:
                busy.append(library.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
            except library.NVMLError as error:
                return GpuReading(names=self._names, reason=f"the GPU does not say how busy it is: {error}")
        return GpuReading(sum(busy) / len(busy), self._names)

    def _open(self) -> str:
        """Why there is nothing to read; "" once there is."""
        try:
            import pynvml as library
        except ImportError:
            return "nvidia-ml-py is not installed; `pip install nvidia-ml-py` to have GPUs counted"
        try:
            library.nvmlInit()
            handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
            names = [library.nvmlDeviceGetName(handle) for handle in handles]
        except library.NVMLError as error:
            if sys.platform == "darwin":
                return "this system does not tell programs how busy its GPU is"
            return f"no NVIDIA GPU ({error}); other makers' are not read"
        if not handles:
            return "no NVIDIA GPU; other makers' are not read"
        self._library, self._handles = library, handles
        self._names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
        return ""
