"""`python -m apriel_mcore.cli` is `apriel`."""

from apriel_mcore.cli import main

main()
