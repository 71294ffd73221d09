"""Run a command with weight decay of all parameters, to measure the effect of excluding biases and norms.

python benchmarks/one_parameter_group.py fit --task=mlm
"""

from __future__ import annotations

import sys
from typing import Any

from perceiver_cli.main import main
from perceiver_plugins.sdk.tasks import lightning, parameter_groups


def one_group(*args: Any, exclude: bool | None = None) -> list[dict[str, Any]]:
    """Ignore what the run or its checkpoint excludes from weight decay."""
    return parameter_groups.group_parameters(*args, exclude=False)


if __name__ == "__main__":
    lightning.group_parameters = one_group
    sys.exit(main())
