"""svc-llm: a safety-gated language model. `genba_llm.app:create_app` serves it."""
