"""GPU nodes on AWS for kaito: `skus` are the machines, `provider` says what is particular to AWS."""
