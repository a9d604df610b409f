"""Are the golds of reasoning-gym right? Worked out again from the question, by programs of our own.

sums.py      numbers and dates
words.py     words, strings and small languages
grids.py     grids, graphs and sequences of moves
puzzles.py   puzzles with a solution to find
recompute.py asks all of them, prints the table of docs/judges.md
"""
