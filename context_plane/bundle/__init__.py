"""Bundle specs and their pure materialization."""
