"""``benchmarks`` is imported from the repository: fairscale, which krasserm's models need, installs one as well."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
