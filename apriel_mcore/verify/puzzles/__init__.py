"""Is the puzzle solved? The production puzzles, each checked by rules of its own; no answer is ever executed.

reading     where the solution stands in an answer, and its cells
arithmetic  the value of a sum that somebody wrote
numbers     grids of numbers: sudoku, futoshiki, skyscrapers ...
boards      grids of symbols: mines, tents, arrows, stars ...
answers     short answers that are compared with a known one
table       task -> check, and what it needs to know
judge       one puzzle against one answer
"""
