"""``python -m perceiver_cli`` is ``perceiver``."""

import sys

from perceiver_cli.main import main

sys.exit(main())
