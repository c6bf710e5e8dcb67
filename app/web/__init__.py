"""Web page: static files, without a build step."""
