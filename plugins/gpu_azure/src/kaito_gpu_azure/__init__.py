"""GPU nodes on Azure for kaito: `skus` are the machines, `provider` says what is particular to Azure."""
