"""What the files under `deploy/` promise, checked by what they are for."""
