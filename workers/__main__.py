"""`python -m workers`: the Celery worker with the settings of the environment."""

import sys

from workers.app import main

sys.exit(main())
