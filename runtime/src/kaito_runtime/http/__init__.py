"""What clients, probes and scrapers meet: routes, errors, keys, pages, metrics. What an answer says is `openai`'s."""
