"""The fields of requests: the table of what each one does here, its use, and the form of an answer."""
