"""svc-sop scores a trainee's video against gold runs of a procedure. Two doors: ``app.create_app`` serves, ``training.RECIPES`` trains."""
