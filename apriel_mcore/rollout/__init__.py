"""The pool of rollout servers and the feed of finished groups."""
