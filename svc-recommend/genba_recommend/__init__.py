"""svc-recommend: lists of videos for each user. Doors: ``genba_recommend.app:create_app`` serves, ``genba_recommend.training:RECIPES`` trains."""
