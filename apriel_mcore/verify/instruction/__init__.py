"""Does the answer keep the constraints of its prompt? One small function per constraint.

table      kind -> check, and the arguments it takes
keywords   single words and letters
lengths    how many words, sentences, paragraphs
layout     titles, lists, sections, whole formats
copies     the prompt or a phrase repeated
language   English or another language
tokens     what a word is
sentences  where a sentence ends
judge      all constraints of a problem against one answer
"""
