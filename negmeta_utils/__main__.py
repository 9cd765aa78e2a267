"""`python -m negmeta_utils` is `negmeta`."""

import sys

from negmeta_utils.studies.cli import main

sys.exit(main())
