"""`python -m kaito_core.fetch` is `kaito-fetch`."""

from kaito_core.fetch.cli import main

main()
