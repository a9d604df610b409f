"""Does the answer keep the constraints of its prompt? One small function per constraint.

registry   kind -> function and the arguments it takes
words      keywords, letters, case, lengths
layout     titles, lists, sections, paragraphs, whole formats
sentences  where a sentence ends
judge      all constraints of a problem against one answer
"""
