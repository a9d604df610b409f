"""python conversion/hf_to_mcore.py SRC DST [--tp T ...]: the same as `apriel convert hf-to-mcore`."""

import sys

from apriel_mcore.cli import main

if __name__ == "__main__":
    main(["convert", "hf-to-mcore", *sys.argv[1:]])
