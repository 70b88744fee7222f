"""The emulated API over HTTP: routes, watches, webhooks, and injected failures."""
