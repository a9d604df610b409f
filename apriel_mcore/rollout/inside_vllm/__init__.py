"""What runs inside vLLM's workers; a server's `--worker-extension-cls` names a class from here."""
