"""The emulated Kubernetes API. Tests use it through `kaito_testing.world.cluster`.

`resources` says which types there are, `shape` how their values merge, `errors` how requests are refused. `schemas`
checks and completes objects, `objects` stores them by the API server's rules, `server` serves them over HTTP.

It agrees with the recorded answers of a real API server (Kubernetes 1.36). It does not emulate authentication and
authorisation, mutating webhooks, conversion, quotas, `scale` of custom resources, and judges neither the structure of a
CRD's schema nor what its rules cost.
"""
