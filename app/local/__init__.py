"""What runs on this machine: the server process, `braid up`, `braid doctor`, the client of a running service."""
