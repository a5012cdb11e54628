"""svc-sem: particle classification from SEM views. Reserved by the layout (docs/explanation/architecture.md), not built yet."""
