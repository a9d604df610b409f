"""python conversion/mcore_to_hf.py SRC DST [--like FOLDER ...]: the same as `apriel convert mcore-to-hf`."""

import sys

from apriel_mcore.cli import main

if __name__ == "__main__":
    main(["convert", "mcore-to-hf", *sys.argv[1:]])
