"""`python -m kaito_runtime` is the command `kaito-runtime`."""

from kaito_runtime.cli import main

main()
