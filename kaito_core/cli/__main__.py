"""`python -m kaito_core.cli`, the same as `kaito`."""

from kaito_core.cli import main

main()
