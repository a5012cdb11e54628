"""svc-training runs jobs. Two doors: ``app.create_app`` serves the jobs' API, ``worker`` is the Celery process that does the work."""
