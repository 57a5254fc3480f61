"""The command line: one module a subcommand, found by the table in `main`."""
