"""The door of Genba: ``app.create_app`` is the gateway, ``embedded.create_app`` mounts every service in it, ``cli.main`` is the command."""
