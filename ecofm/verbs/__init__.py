"""The verbs of the command line: flags in, one call of the library, one line out."""
