"""svc-sem says what kind of particle several SEM images show. Two doors: ``app.create_app`` serves, ``training.RECIPES`` trains."""
