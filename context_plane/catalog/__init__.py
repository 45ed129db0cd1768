"""What is built and visible: the log, its tail, the manifest and its commit."""
