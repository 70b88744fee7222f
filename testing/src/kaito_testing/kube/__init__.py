"""The emulated Kubernetes API: a pure object store with the API server's rules, and one HTTP layer over it.

The rules live in small modules of plain functions (`patches`, `fields`, `schema`, `defaults`, `validation`,
`selectors`); `store` puts them together; `http` serves them. Tests use `kaito_testing.world.cluster`.
"""
