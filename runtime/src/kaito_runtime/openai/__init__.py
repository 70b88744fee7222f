"""OpenAI's API without HTTP: the bodies of requests and responses, and the way from a request to jobs."""
