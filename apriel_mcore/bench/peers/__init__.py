"""Other systems on the same task, each in an environment of its own."""
