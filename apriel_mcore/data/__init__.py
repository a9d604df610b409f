"""Which problem next, and how samples become rows."""
