"""``python -m trpo_fast``."""

import sys

from trpo_fast.cli.main import main

sys.exit(main())
