"""What each command of the command line does: a module each, with its flags and a `main`."""
