"""`python -m llamasup` is the same as `llamasup`."""

import sys

from llamasup.cli import main

sys.exit(main())
