"""OpenAI's API without HTTP: bodies of requests and replies, and how a request becomes jobs for the engine."""
