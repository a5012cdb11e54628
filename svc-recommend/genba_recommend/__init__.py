"""svc-recommend: lists of videos for each user. Two doors: ``app.create_app`` serves, ``training.RECIPES`` trains."""
