"""GPU nodes on Azure for kaito: `skus` has the machine types, `provider` describes Azure."""
