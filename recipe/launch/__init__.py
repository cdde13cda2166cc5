"""The command that starts a run, and what it checks before: first of all that the environment has
what the modules below import."""

import sys

from recipe.core import cli, requirements

try:
    requirements.check()
except cli.ERRORS as error:
    sys.exit(cli.fail(error))
