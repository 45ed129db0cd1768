"""The HTTP service: thin routes over `context_plane`. Never imports dagster, assets or resources."""
