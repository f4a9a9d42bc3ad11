"""``python -m hypercontainer`` is ``hyper``."""

import sys

from hypercontainer.cli.main import main

sys.exit(main())
