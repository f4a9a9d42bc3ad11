"""``hyper``: the command line.  Each verb's module is imported only when the verb is asked for."""
