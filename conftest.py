"""How hypothesis runs: quickly by default, thoroughly with HYPOTHESIS_PROFILE=thorough (`make test-slow`)."""

import os

from hypothesis import HealthCheck, settings

# No test measures time, and on a busy machine any example may be slow.
settings.register_profile("quick", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
