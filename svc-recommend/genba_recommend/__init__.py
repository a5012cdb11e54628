"""svc-recommend: two-tower video recommendation. Reserved by the layout (docs/explanation/architecture.md), not built yet."""
