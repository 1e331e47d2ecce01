"""The command line: one file a command; results go to stdout, progress and errors to stderr."""
