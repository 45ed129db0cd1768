"""The command line `context-plane`: the outermost layer, above the service and the assets."""
