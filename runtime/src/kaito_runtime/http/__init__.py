"""HTTP: routes, errors, tokens, the chat page, probes, metrics. The bodies of completions are made in `openai`."""
