"""svc-llm: a safety-gated language model. Reserved by the layout (docs/explanation/architecture.md), not built yet."""
