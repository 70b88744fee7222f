"""The emulated API over HTTP: routes, watches, webhooks, and failures on demand."""
