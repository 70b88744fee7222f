"""GPU nodes on AWS for kaito: `skus` has the machine types, `provider` describes AWS."""
