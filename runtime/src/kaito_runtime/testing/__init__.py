"""The public test kit of the runtime: tiny random models and adapters. Needs kaito-runtime[torch]."""
