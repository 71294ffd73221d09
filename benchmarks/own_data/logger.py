"""Logger of the measured runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import CSVLogger


class TimedCSVLogger(CSVLogger):
    """CSV logger with a column ``cpu_seconds``: CPU time of the process since its start."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        super().log_metrics({**metrics, "cpu_seconds": time.process_time()}, step)
