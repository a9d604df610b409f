"""How often do our constraint checkers and the published ones agree? Run by hand: see docs/judges.md.

answers.py   answers to IFEval's prompts, near the bounds of their constraints
vacuous.py   answers without content that published checkers accept
original.py  the published checkers, in a Python of their own
replay.py    asks both, prints the table
"""
