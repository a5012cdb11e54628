"""What every Genba service stands on. Doors: ``service``, ``settings``, ``problems``, ``db``, ``jobs``."""
